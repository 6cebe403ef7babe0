//! The content of a disk, in pages that clones share.

use std::collections::HashMap;
use std::sync::Arc;

/// What is shared as a whole.
pub(super) const PAGE_BYTES: usize = 4096;

/// The content of a disk. Clones share what is equal.
#[derive(Clone, Default)]
pub struct Image {
    pages: HashMap<u64, Arc<[u8]>>,
}

impl Image {
    /// Fills `out` with what lies at `at`.
    pub fn read(&self, at: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let position = at + done as u64;
            let within = (position % PAGE_BYTES as u64) as usize;
            let take = (PAGE_BYTES - within).min(out.len() - done);
            let to = &mut out[done..done + take];
            match self.pages.get(&(position / PAGE_BYTES as u64)) {
                Some(page) => to.copy_from_slice(&page[within..within + take]),
                None => to.fill(0),
            }
            done += take;
        }
    }

    /// Puts `bytes` at `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let position = at + done as u64;
            let within = (position % PAGE_BYTES as u64) as usize;
            let take = (PAGE_BYTES - within).min(bytes.len() - done);
            if take == PAGE_BYTES && bytes[done..done + take].iter().all(|byte| *byte == 0) {
                // mkfs writes whole megabytes of them.
                self.pages.remove(&(position / PAGE_BYTES as u64));
                done += take;
                continue;
            }
            let page = self
                .pages
                .entry(position / PAGE_BYTES as u64)
                .or_insert_with(|| Arc::from([0u8; PAGE_BYTES]));
            let from = &bytes[done..done + take];
            match Arc::get_mut(page) {
                Some(page) => page[within..within + take].copy_from_slice(from),
                None => {
                    let mut copy = page.to_vec();
                    copy[within..within + take].copy_from_slice(from);
                    *page = Arc::from(copy);
                }
            }
            done += take;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_an_image_do_not_share_later_writes() {
        let mut one = Image::default();
        one.write(100, &[1; 5000]);
        let two = one.clone();
        one.write(0, &[2; 512]);
        let mut bytes = [0; 1];
        two.read(100, &mut bytes);
        assert_eq!(bytes, [1]);
        one.read(100, &mut bytes);
        assert_eq!(bytes, [2]);
        one.read(5099, &mut bytes);
        assert_eq!(bytes, [1]);
    }
}
