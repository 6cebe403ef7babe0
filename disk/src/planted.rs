//! Bugs that are planted on purpose, so that the tests can be tested: does one of them notice?
//!
//! A place in this crate or in the engine asks [`planted`] whether its bug is at work. In every
//! ordinary build the answer is a constant `false`: nothing of a bug, not even its name, is left
//! in the program. With the feature `__mutants`, which is for the tests of this project only, the
//! environment variable `RINGLOG_MUTANT` names the one bug that is at work in this process.
//! `ringlog-sim mutants` runs the tests against each of them; see `docs/mutants.md`.

macro_rules! bugs {
    ($($bug:ident: $what:literal,)*) => {
        /// The bugs, each by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        /// Every bug: itself, its name, and what it does.
        #[cfg(feature = "__mutants")]
        pub const BUGS: &[(Bug, &str, &str)] = &[$((Bug::$bug, stringify!($bug), $what),)*];
    };
}

bugs! {
    AcknowledgeAtWrite: "a commit counts as flushed once it is written",
    AnswerFlushAtWrite: "a request to flush is answered once everything is written",
    CountFailedCommit: "a commit whose write or flush failed counts as done",
    RetryFailedFlush: "a flush that failed is tried again",
    SkipEpochBump: "a new life goes on with the epoch of the one before",
    SkipChainCheck: "recovery takes a batch that is not chained to the one before",
    AcceptEveryFrame: "the checksum of a frame is not compared",
    SkipDirectorySync: "a prepared segment is listed before its name is durable",
    TrimOneTooMany: "a trim by number keeps one segment too few",
    ForgetFirstLsn: "the manifest does not say where a new life begins to write",
}

/// Whether a bug is at work: in an ordinary build, never.
#[cfg(not(feature = "__mutants"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Whether a bug is at work: the one that `RINGLOG_MUTANT` names.
///
/// # Panics
/// When it names none of them.
#[cfg(feature = "__mutants")]
pub fn planted(bug: Bug) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let choose = || {
        let name = std::env::var("RINGLOG_MUTANT").ok()?;
        let known = BUGS.iter().find(|(_, known, _)| *known == name);
        let Some((bug, ..)) = known else { panic!("RINGLOG_MUTANT: no bug is called {name:?}") };
        Some(*bug)
    };
    *CHOSEN.get_or_init(choose) == Some(bug)
}
