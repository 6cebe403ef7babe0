//! Taking decisions from the bytes of an input.

/// Takes from the front; zeros where nothing is left.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As many bytes as there are, at most `count`.
    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }

    fn word<const N: usize>(&mut self) -> [u8; N] {
        let mut word = [0; N];
        let bytes = self.bytes(N);
        word[..bytes.len()].copy_from_slice(bytes);
        word
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.word())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.word())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.word())
    }

    /// A number that is often small, or close to one, or close to the largest.
    pub(super) fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=200 => small.into(),
            201..=220 => u64::from(self.u16()) * 4096,
            221..=235 => u64::MAX - u64::from(self.u8()),
            _ => u64::from_le_bytes(self.word()),
        }
    }

    /// A number below `count`, which is not 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        match count {
            ..=256 => usize::from(self.u8()) % count,
            257..=65536 => usize::from(self.u16()) % count,
            _ => self.u32() as usize % count,
        }
    }
}
