//! A record as a line of JSON, the same for every command that writes or reads such lines; and
//! payloads as text for eyes.
//!
//! Invariant: what is written for a record is read back as the same stream, payload and kind.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use ringlog::RecordRef;
use serde::{Deserialize, Serialize};

use crate::text::escape;

/// A payload as JSON has it: text where it is UTF-8, else base64. The field's name says which.
#[derive(Serialize)]
pub(crate) struct JsonPayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> JsonPayload<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let payload = std::str::from_utf8(bytes).ok();
        let encoded = || Base64Display::new(bytes, &STANDARD).to_string();
        Self { payload, payload_base64: payload.is_none().then(encoded) }
    }
}

/// A record as one object.
#[derive(Serialize)]
pub(crate) struct JsonRecord<'a> {
    /// Left out where a command is about one stream only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<&'a str>,
    pub(crate) offset: u64,
    pub(crate) timestamp_ns: u64,
    #[serde(flatten)]
    pub(crate) payload: JsonPayload<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tombstone: bool,
}

impl<'a> JsonRecord<'a> {
    pub(crate) fn of(stream: Option<&'a str>, record: &RecordRef<'a>) -> Self {
        Self {
            stream,
            offset: record.offset().0,
            timestamp_ns: record.timestamp_ns(),
            payload: JsonPayload::of(record.payload()),
            tombstone: record.is_tombstone(),
        }
    }
}

/// Writes one object and a newline.
pub(crate) fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// A record as a line says it: what `export` writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImportedRecord {
    pub(crate) stream: String,
    /// Where it was in the log that it came from.
    pub(crate) offset: Option<u64>,
    pub(crate) payload: Vec<u8>,
    pub(crate) tombstone: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    stream: String,
    offset: Option<u64>,
    #[serde(rename = "timestamp_ns")]
    _timestamp_ns: Option<u64>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    tombstone: bool,
}

impl ImportedRecord {
    /// Reads one line; says in words why it is none.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            // Its own line number is that of a text of one line.
            let text = error.to_string();
            let what = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
            format!("column {}: {what}", error.column())
        })?;
        let payload = match (line.payload, line.payload_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => STANDARD
                .decode(encoded)
                .map_err(|error| format!("payload_base64 is no base64: {error}"))?,
            (None, None) => return Err("neither payload nor payload_base64".to_owned()),
            (Some(_), Some(_)) => return Err("both payload and payload_base64".to_owned()),
        };
        let (stream, offset, tombstone) = (line.stream, line.offset, line.tombstone);
        Ok(Self { stream, offset, payload, tombstone })
    }
}

/// A payload for eyes: at most `limit` bytes of it, harmless for a terminal, and how much is left
/// out. Bytes that are no text come as `\xff`.
pub(crate) fn payload_text(payload: &[u8], limit: usize) -> String {
    let mut shown = payload.len().min(limit);
    // A character is not torn apart.
    while shown < payload.len() && shown > 0 && payload[shown] & 0xc0 == 0x80 {
        shown -= 1;
    }
    let mut text = String::new();
    for chunk in payload[..shown].utf8_chunks() {
        text += &escape(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| Cow::from(format!("\\x{byte:02x}"))));
    }
    if shown < payload.len() {
        text += &format!("… and {} bytes", payload.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_line_is_read_as_the_same_record() {
        let payloads: [&[u8]; 6] =
            [b"", b"text", "Größe \u{1f980}".as_bytes(), b"\0\n\"\\", b"\xff\xfe", &[b'x'; 70_000]];
        for payload in payloads {
            for tombstone in [false, true] {
                let record = JsonRecord {
                    stream: Some("a \"stream\"\n"),
                    offset: u64::MAX,
                    timestamp_ns: 1,
                    payload: JsonPayload::of(payload),
                    tombstone,
                };
                let mut line = Vec::new();
                write_line(&mut line, &record).unwrap();
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                let read = ImportedRecord::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                let expected = ImportedRecord {
                    stream: "a \"stream\"\n".to_owned(),
                    offset: Some(u64::MAX),
                    payload: payload.to_vec(),
                    tombstone,
                };
                assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        let cases = [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{\"stream\":\"s\"}", "neither"),
            ("{\"payload\":\"x\"}", "missing field `stream`"),
            ("{\"stream\":\"s\",\"payload\":\"x\",\"payload_base64\":\"eA==\"}", "both"),
            ("{\"stream\":\"s\",\"payload_base64\":\"e\"}", "no base64"),
            ("{\"stream\":\"s\",\"payload\":\"x\",\"payloud\":1}", "unknown field"),
            ("{\"stream\":\"s\",\"payload\":\"x\",\"offset\":-1}", "invalid"),
            ("{\"stream\":\"s\",\"payload\":\"x\"} {}", "trailing"),
            ("{\"stream\":\"s\",\"payload\":\"\\ud800\"}", "column"),
            ("{\"stream\":\"s\",\"payload\":\"x\"", "column"),
        ];
        for (line, why) in cases {
            let error = ImportedRecord::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
            assert!(!error.contains("at line"), "{error}");
        }
        assert!(ImportedRecord::parse(b"{\"stream\":\"s\",\"payload\":\"\xff\"}").is_err());
    }

    #[test]
    fn payloads_for_eyes_are_harmless_and_short() {
        assert_eq!(payload_text(b"a\x1b[2J\xffb", 64), "a\\u{1b}[2J\\xffb");
        assert_eq!(payload_text(b"abcdef", 4), "abcd… and 2 bytes");
        assert_eq!(payload_text("aß".as_bytes(), 2), "a… and 2 bytes");
        assert_eq!(payload_text(b"\x80\x80\x80", 1), "… and 3 bytes");
        assert_eq!(payload_text(b"", 0), "");
    }
}
