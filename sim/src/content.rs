//! The bytes of one file on the media, in shared pages.
//!
//! Forking a world must be cheap, since crash enumeration recovers many alternatives from one
//! state; so pages are shared until they change, and pages of zeros are not stored at all.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;
type Page = [u8; PAGE_BYTES];

/// The bytes of a file: `len` of them, zero where no page is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    pub(crate) fn zeros(len: u64) -> Self {
        Self { len, pages: BTreeMap::new() }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::zeros(bytes.len() as u64);
        content.write(0, bytes);
        content
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Copies what there is from `offset` on; the rest of `into` is left as it was.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        let available = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for (page, within, range) in pieces(offset, available) {
            let part = &mut into[range.clone()];
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + range.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Overwrites; what would lie beyond the end is dropped.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let available = self.len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        for (page, within, range) in pieces(offset, available) {
            let part = &bytes[range];
            if !self.pages.contains_key(&page) && part.iter().all(|b| *b == 0) {
                continue;
            }
            let stored = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(stored)[within..within + part.len()].copy_from_slice(part);
        }
    }

    /// Shortens, or lengthens with zeros.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let page_bytes = PAGE_BYTES as u64;
            self.pages.split_off(&len.div_ceil(page_bytes));
            if let Some(last) = self.pages.get_mut(&(len / page_bytes)) {
                // What lies behind the new end must not come back when the file grows again.
                Arc::make_mut(last)[(len % page_bytes) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Shows each sector of what is stored: where it begins, and its bytes.
    pub(crate) fn sectors(&self, mut each: impl FnMut(u64, &[u8])) {
        for (page, bytes) in &self.pages {
            let start = page * PAGE_BYTES as u64;
            for (at, sector) in (0..).step_by(512).zip(bytes.chunks(512)) {
                let end = self.len.saturating_sub(start + at).min(512) as usize;
                each(start + at, &sector[..end]);
            }
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.len as usize];
        self.read(0, &mut all);
        all
    }
}

/// Cuts a range at page borders: page number, place within it, range of the caller's bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let n = (PAGE_BYTES - within).min(len - done);
        let piece = (at / PAGE_BYTES as u64, within, done..done + n);
        done += n;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_give_what_was_written_across_pages() {
        let mut content = Content::zeros(20_000);
        let bytes: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8 + 1).collect();
        content.write(4000, &bytes);
        let mut back = vec![9; 9002];
        content.read(3999, &mut back);
        assert_eq!(back[0], 0);
        assert_eq!(&back[1..9001], &bytes[..]);
        assert_eq!(back[9001], 0);
    }

    #[test]
    fn clones_do_not_share_changes() {
        let mut content = Content::from_bytes(&[1; 5000]);
        let before = content.clone();
        content.write(10, &[7; 10]);
        assert_eq!(before.to_vec(), vec![1; 5000]);
        assert_eq!(content.to_vec()[10..20], [7; 10]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::from_bytes(&[1; 9000]);
        content.set_len(5000);
        content.set_len(9000);
        assert_eq!(content.to_vec()[..5000], [1; 5000]);
        assert_eq!(content.to_vec()[5000..], [0; 4000]);
        content.set_len(4096);
        content.set_len(8192);
        assert_eq!(content.to_vec()[4096..], [0; 4096]);
    }

    #[test]
    fn nothing_is_written_or_read_beyond_the_end() {
        let mut content = Content::zeros(100);
        content.write(90, &[1; 50]);
        content.write(200, &[1; 50]);
        assert_eq!(content.to_vec().len(), 100);
        let mut back = [5; 20];
        content.read(95, &mut back);
        assert_eq!(back[..6], [1, 1, 1, 1, 1, 5]);
    }
}
