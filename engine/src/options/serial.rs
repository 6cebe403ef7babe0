//! Options in configuration files: policies and times are the text that the environment takes
//! too; sizes are numbers of bytes, or such a text.

use std::time::Duration;

use ringlog_disk::{IoKind, Primitive};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Durability, RecoveryMode, SyncPolicy, text};

/// Types that are their text.
macro_rules! by_text {
    ($($type:ty),+) => {
        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    String::deserialize(from)?.parse().map_err(D::Error::custom)
                }
            }
        )+
    };
}

by_text!(Durability, RecoveryMode, SyncPolicy);

/// A field that is read and written by functions, of a type that may belong to another crate.
macro_rules! field {
    ($module:ident, $type:ty, $read:expr, $write:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) fn serialize<S: Serializer>(
                value: &$type,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                $write(*value).serialize(to)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<$type, D::Error> {
                $read(Deserialize::deserialize(from)?).map_err(D::Error::custom)
            }
        }
    };
}

/// The same for a field that may be missing.
macro_rules! optional_field {
    ($module:ident, $type:ty, $read:expr, $write:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) fn serialize<S: Serializer>(
                value: &Option<$type>,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                value.map($write).serialize(to)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<Option<$type>, D::Error> {
                let found = Option::deserialize(from)?;
                found.map($read).transpose().map_err(D::Error::custom)
            }
        }
    };
}

/// A number of bytes, or its text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes, or a text such as \"64M\"")]
enum Size {
    Number(u64),
    Text(String),
}

impl Size {
    fn bytes(self) -> Result<u64, String> {
        match self {
            Self::Number(bytes) => Ok(bytes),
            Self::Text(text) => text::size(&text),
        }
    }

    fn in_memory(self) -> Result<usize, String> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| format!("{bytes} bytes are too many"))
    }
}

fn same<T>(bytes: T) -> T {
    bytes
}

field!(io, IoKind, |text: String| text::io(&text), text::io_text);
field!(memory_size, usize, Size::in_memory, same);
field!(duration, Duration, |text: String| text::duration(&text), text::duration_text);
optional_field!(size_or_none, u64, Size::bytes, same);
optional_field!(memory_size_or_none, usize, Size::in_memory, same);
optional_field!(
    duration_or_none,
    Duration,
    |text: String| text::duration(&text),
    text::duration_text
);
optional_field!(
    primitive_or_none,
    Primitive,
    |text: String| text::primitive(&text),
    text::primitive_text
);
