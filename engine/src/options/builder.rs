//! Options, one by one.

use std::time::Duration;

use ringlog_disk::{IoKind, Primitive};

use super::{Durability, Format, Options, RecoveryMode, Retention, SyncPolicy};
use crate::error::OpenError;

/// Makes [`Options`], one field after another; [`OptionsBuilder::build`] checks them.
///
/// ```
/// # use ringlog::{Durability, Options};
/// # use std::time::Duration;
/// let options = Options::builder()
///     .segment_bytes(16 << 20)
///     .durability(Durability::Written)
///     .rotate_after(Duration::from_secs(3600))
///     .from_env()? // the environment wins over what was said before
///     .build()?;
/// # Ok::<(), ringlog::OpenError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is made before `build`"]
pub struct OptionsBuilder(Options);

impl From<Options> for OptionsBuilder {
    fn from(options: Options) -> Self {
        Self(options)
    }
}

/// Methods that only set a field.
macro_rules! setters {
    ($($field:ident: $type:ty, $doc:literal;)+) => {
        $(
            #[doc = $doc]
            #[doc = ""]
            #[doc = concat!("See [`Options::", stringify!($field), "`].")]
            pub fn $field(mut self, $field: impl Into<$type>) -> Self {
                self.0.$field = $field.into();
                self
            }
        )+
    };
}

impl OptionsBuilder {
    setters! {
        create: bool, "Whether a log may be created where there is none.";
        format: Format, "The format of a log that is created, or that an existing one must have.";
        durability: Durability, "The durability of an append that does not name one.";
        sync: SyncPolicy, "When shards flush.";
        recovery: RecoveryMode, "What to do about damage.";
        io: IoKind, "How to reach the disk.";
        primitive: Option<Primitive>, "The commit primitive.";
        profile_disk: bool, "Whether the disk is measured where no profile holds.";
        pin: bool, "Whether writer threads are pinned.";
        memory_bytes: usize, "Memory for records on their way to disk, for the whole log, in bytes.";
        batch_bytes_max: usize, "The largest record or atomic batch that must fit, in bytes.";
        commits_in_flight: Option<usize>, "How many commits may be in flight per shard.";
        commit_bytes: Option<usize>, "How many bytes one commit may carry.";
        linger: Duration, "How long a commit waits for company when the disk is free.";
        retention: Retention, "What is kept, beside what is wanted by hand.";
        rotate_after: Option<Duration>, "The age at which a segment is sealed.";
        index_cache_bytes: usize, "Memory for indexes of sealed segments, per shard, in bytes.";
        tail_bytes: usize, "Memory for the newest batches, per shard, in bytes.";
    }

    /// Size of a segment file in bytes. See [`Format::segment_bytes`].
    pub fn segment_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.0.format.segment_bytes = bytes.into();
        self
    }

    /// Number of shards. See [`Format::shards`].
    pub fn shards(mut self, shards: impl Into<Option<u16>>) -> Self {
        self.0.format.shards = shards.into();
        self
    }

    /// The policy of one stream, where it differs from that of the log. See
    /// [`Options::stream_sync`].
    pub fn stream_sync(mut self, stream: impl Into<String>, policy: SyncPolicy) -> Self {
        self.0.stream_sync.insert(stream.into(), policy);
        self
    }

    /// Sets what the environment names; see [`super::VARIABLES`].
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the variable.
    pub fn from_env(mut self) -> Result<Self, OpenError> {
        self.0.set_from(std::env::vars_os())?;
        Ok(self)
    }

    /// Checks the options and gives them.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the first field that is out of bounds, and the bound.
    pub fn build(self) -> Result<Options, OpenError> {
        self.0.validate()?;
        Ok(self.0)
    }
}
