//! What the simulated disk counts, and the trace by which two runs are compared.

/// Counts of what the disk has carried out, failures included, since the world began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Writes that were asked to flush their own bytes.
    pub flushes_own: u64,
    /// Writes that were asked to flush the file.
    pub flushes_file: u64,
    /// `Sync` operations.
    pub syncs: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Files opened.
    pub opens: u64,
    /// Files created.
    pub creates: u64,
    /// Bytes of the files created.
    pub bytes_created: u64,
    /// Files closed.
    pub closes: u64,
    /// Files renamed.
    pub renames: u64,
    /// Files removed.
    pub removes: u64,
    /// Small files replaced.
    pub replaces: u64,
    /// Small files stored without a flush.
    pub stores: u64,
    /// Small files loaded.
    pub loads: u64,
    /// Directory syncs.
    pub dir_syncs: u64,
    /// Directory listings.
    pub lists: u64,
    /// Times that the disk was told to complete nothing for a while.
    pub stalls: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Operations that broke the contract: they failed with `Unexpected`. Tests assert 0.
    pub contract_violations: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Deaths of the process.
    pub kills: u64,
}

impl SimStats {
    /// All flushes of data: own, file and `Sync`.
    pub fn flushes(&self) -> u64 {
        self.flushes_own + self.flushes_file + self.syncs
    }
}

/// What happened, as a hash and optionally as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
    muted: bool,
}

impl Trace {
    pub(crate) fn new(keep_lines: bool) -> Self {
        Self { hash: 0, lines: keep_lines.then(Vec::new), muted: false }
    }

    /// Nobody will compare this run with another one.
    pub(crate) fn mute(&mut self) {
        self.muted = true;
    }

    pub(crate) fn event(&mut self, what: &str, subject: &str, numbers: &[u64]) {
        if self.muted {
            return;
        }
        self.mix_bytes(what.as_bytes());
        self.mix_bytes(subject.as_bytes());
        for number in numbers {
            self.mix(*number);
        }
        if let Some(lines) = &mut self.lines {
            let sep = if subject.is_empty() { "" } else { " " };
            lines.push(format!("{what}{sep}{subject} {numbers:?}"));
        }
    }

    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        if self.muted {
            return;
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            self.mix(u64::from_le_bytes(eight));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    /// Mixes a word of each sector: what was read was written before, and is in the trace.
    pub(crate) fn mix_sample(&mut self, bytes: &[u8]) {
        if self.muted {
            return;
        }
        for sector in bytes.chunks(512) {
            self.mix_bytes(&sector[..sector.len().min(8)]);
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
