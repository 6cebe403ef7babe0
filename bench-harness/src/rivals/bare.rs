//! What has no log around it, beside the rivals: to compare with, and none of them.

use std::path::Path;

use crate::group_commit::{GroupCommit, Wake};
use crate::rivals::adapter::{Purpose, Rival, Tally};

impl Rival for GroupCommit {
    const NAME: &'static str = "bare";
    const VERSION: &'static str = "";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        match purpose {
            Purpose::Durable => Self::create(dir, true, Wake::WhenWaited),
            Purpose::Unsynced => Self::create(dir, false, Wake::AtOnce),
            Purpose::Keep | Purpose::Fill => Err("it keeps nothing".to_owned()),
        }
    }

    fn replay(_: &Path) -> Result<Tally, String> {
        Err("it keeps nothing".to_owned())
    }
}
