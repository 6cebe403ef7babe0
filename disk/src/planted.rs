//! Bugs that are planted on purpose, so that the tests can be tested: does one of them notice?
//!
//! A place in this crate or in the engine asks [`planted`] whether its bug is at work. In every
//! ordinary build the answer is a constant `false`: nothing of a bug, not even its name, is left
//! in the program. With the feature `__mutants`, which is for the tests of this project only, the
//! environment variable `RINGLOG_MUTANT` names the one bug that is at work in this process.
//! `ringlog-sim mutants` runs the tests against each of them; see `docs/mutants.md`.

macro_rules! bugs {
    ($($bug:ident: $what:literal,)*; $($unseen:ident: $unseen_what:literal,)*) => {
        /// The bugs, each by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
            $(#[doc = $unseen_what] $unseen,)*
        }

        /// Every bug that a test can notice: itself, its name, and what it does.
        #[cfg(feature = "__mutants")]
        pub const BUGS: &[(Bug, &str, &str)] = &[$((Bug::$bug, stringify!($bug), $what),)*];

        /// The bugs of unsafe code that no wrong answer shows: only a sanitizer notices them
        /// (`scripts/ci-sanitizers.sh`).
        #[cfg(feature = "__mutants")]
        pub const UNSEEN_BUGS: &[(Bug, &str, &str)] =
            &[$((Bug::$unseen, stringify!($unseen), $unseen_what),)*];
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
    AcceptZeroFrameCrc: "a frame whose checksum is zero is taken as it is",
    AcceptZeroHeaderCrc: "a batch header whose checksum is zero is taken as it is",
    SeedWithoutSegment: "the checksum of a batch header does not depend on the segment",
    SkipSectionChecksum: "the checksum of section headers and runs is not compared",
    SkipPadding: "bytes behind the last section of a batch may be anything",
    AcceptDamagedManifest: "the checksum of a manifest, of the log file and of a catalogue part is not compared",
    AcceptDamagedIndexPage: "the checksum of a page of an index is not compared",
    TrustIndexLength: "an index may be shorter than its header says",
    AcceptEveryEpoch: "recovery takes a batch of any life",
    ServeUnprovenTail: "what nothing proves to be durable is served as it is, and not written again",
    SkipFlushOfRewritten: "what recovery has written again is not flushed",
    SkipDirectorySyncOfRewritten: "the files that recovery has written are listed before their names are durable",
    RewriteBeforeEpoch: "the tail is written again before the new epoch is durable",
    CutDurableSilently: "damage below what was durable once ends the log without a word",
    RefuseTornTail: "a torn batch that nothing proves is damage",
    ForgetNextSegment: "recovery does not go on in the next segment",
    ReadEndOnce: "who will write behind the end of the log reads it once only",
    DoubtTheWriter: "who only looks reads the end of the log twice, too, and takes a busy writer for a wrong disk",
    IgnoreProofInHeaders: "what the headers behind a damaged batch prove is not asked",
    BelieveClosedChain: "after a clean close the last batch is not compared with the chain value in the manifest",
    BelieveClosedSegment: "after a clean close the header of the segment is not looked at",
    StayClean: "the manifest of a new life still says that the log was closed",
    WriteDurableLsnTooLarge: "a batch says that all before it was durable",
    ProveTooMuch: "the manifest says that what was only written is durable",
    WrittenOutOfOrder: "a commit counts as written before the one in front of it",
    DurableOutOfOrder: "a flush of a later commit counts for the one in front of it",
    FlushOwnBytesOnly: "a commit that must flush its file flushes only its own bytes",
    FlushCoversWhatIsInFlight: "a flush is said to cover writes that were under way when it began",
    FlushTheOpenFile: "a flush goes to the open segment, whichever has bytes to be flushed",
    GoOnAfterFailure: "a shard goes on after a failed write or flush",
    LeaveThePendingWaiting: "a failure is not told to those whose records have no place yet",
    LeaveTheRefusedWaiting: "a full disk is not told to those whose records it refuses",
    SkipWatermark: "nothing puts the last durable LSN on record",
    SplitCommits: "each chunk is committed and flushed alone",
    GiveOffsetTwice: "the last offset of a run is given out once more",
    ForgetStrongerLevel: "a chunk is as durable as its last append has asked for, not its strongest",
    UseNonceTwice: "all chunks of a life have the same nonce",
    CreateAfterRecord: "a record may come before the creation of its stream",
    ForgetOpenChunk: "the writer does not come for a chunk that nobody waits for",
    IgnorePressure: "the writer does not hear that memory runs low",
    WaitForCompanyWithoutEnd: "a commit that waits for those who were served goes out only when one comes back",
    LoseBell: "threads that wait for a receipt are not woken",
    LoseReceiptWaker: "tasks that wait for a receipt are not woken",
    AcknowledgeTooHigh: "a chunk that was written counts as synced for whoever asks its receipt",
    SealBeforeDurable: "a segment is sealed before all in it is durable",
    SkipFooterFlush: "the footer of a sealed segment is not flushed",
    SkipHeaderFlush: "the header of a prepared segment is not flushed",
    OpenUnlisted: "a prepared segment is written to before a manifest lists it",
    SkipCatalogue: "what a sealed segment changes in the streams is not catalogued",
    CloseBeforeDurable: "a log is marked as closed before all in it is durable",
    AnswerRotateAtOnce: "a request to rotate is answered before the segment is sealed",
    RecycleUnderReader: "the file of a trimmed segment is used again while a reader is in it",
    ForgetTrimmedChain: "the manifest does not keep the chain value of what was trimmed",
    KeepGeneration: "a manifest that replaces another one has the same generation",
    FullDiskIsFailure: "a full disk is a failure like any other",
    ForgetFullDisk: "a disk that is full for the next segment is forgotten when something else goes well",
    OtherShardsGoOn: "the failure of a shard does not end the other shards of its log",
    TakeBehindRefused: "a record is taken behind one of the same thread that was given up for want of room",
    RetainOneTooFew: "retention by number keeps one segment too few",
    AgeByFirstRecord: "a segment is as old as its first record",
    TrustJumpedClock: "retention by age goes on after a jump of the wall clock",
    ReclaimOneTooEarly: "a segment goes although one record in it is not trimmed",
    ReclaimBeforeDurable: "segments go for a trim that is not durable",
    PublishTrimEarly: "readers are shown a trim before it is durable",
    TakeTrimBack: "a later trim to a smaller offset takes the earlier one back",
    ForgetTrimInCatalogue: "the trim of a stream is not catalogued",
    ForgetNameInCatalogue: "the name of a new stream is not catalogued",
    BelieveStaleIndex: "after a clean close an index of another state of its segment is believed",
    StoreIndexWithHoles: "an index of a damaged segment is stored as if it were whole",
    SearchTimeTooFar: "a search by time passes over records of the same instant",
    SearchOffsetTooFar: "a search by offset begins one record too late",
    ReadBeyondDurable: "a reader is shown what is not durable",
    ReadUnchained: "a reader does not look whether a batch continues the one before it",
    ReadOlderLife: "a reader takes a batch of an older life than the one before it",
    ReadPastWritten: "a follower keeps blocks that it has read before they were written",
    HideLostRecords: "a reader passes over lost records without a word",
    RepeatRecords: "a reader gives records before the one that was asked for",
    ReadTrimmedRecords: "a reader gives records that were trimmed",
    EndAtTrimmedRest: "a reader ends without a word where the rest was trimmed under it",
    ReadBackwardsTooShort: "a reader that goes backwards passes over the last batch of a segment",
    LoseFollowerWake: "followers are not woken",
    FollowLooksOnce: "a follower that is polled does not look again once it has left its waker",
    HideRetraction: "a follower is not told that what it was given is gone",
    ShowUnproven: "a second process shows what nothing proves, beside a writer",
    TakeBackWhatWasShown: "a second process shows less while a new life begins",
    IgnoreNewLife: "a second process goes on in segments that a new life has replaced",
    RepairWithoutCopy: "a repair replaces a segment that it has not copied",
    RepairHidesLoss: "a repair does not say what is lost",
    RepairGivesOffsetsTwice: "after a repair a stream goes on at offsets that were given out",
    IgnoreShortWriteInRing: "a short write of the ring counts as whole",
    IgnoreShortWrite: "a short blocking write counts as whole",
    GoOnAtTheFirstOffset: "the rest of a short write goes where its front went",
    GoOnWithTheFirstBytes: "the rest of a short write is its front once more",
    CancelledFlushIsDone: "a flush that was cancelled counts as done",
    RepeatFailedFlush: "the ring repeats a flush that has run and failed",
    TrustSplitChain: "a flush counts although the kernel has taken it apart from its write",
    SignalIsFailure: "a write that a signal has kept from running counts as failed",
    DsyncForFile: "a flush of the file is left to RWF_DSYNC, which covers its own bytes only",
    SkipDataSync: "a blocking flush does nothing",
    SkipSyncOfReplaced: "a file is replaced by one that is not flushed",
    SkipNameOfReplaced: "a file counts as replaced before its name is durable",
    SkipSyncOfCreated: "a new segment file counts as made before it is flushed",
    MixTwoContents: "a file that is replaced while it is read may be read as a mixture",
    WriteIntoHardLink: "what somebody has linked where the next content is written is written to",
    LeaveModeToUmask: "the files of a log are as open as the umask lets them be",
    FollowLinks: "a symbolic link in the directory of a log is followed",
    TakeEveryAlignment: "operations that are not aligned go to the kernel",
    CloseBusyFile: "a file is closed while operations on it are in flight",
    HideBufferedWrites: "nobody is told that direct I/O on tmpfs is none",
    ShareTheLock: "two processes may hold the lock of a log",
    KeepStaleDescriptor: "the ring goes on with the file that had this id before",
    ;
    TakeBlockUnordered: "who takes a block does not wait for what its last user has written",
    ReadClosedDirectory: "a name in a directory is read after the directory was closed",
    LeakDirectory: "a directory that was listed is never closed",
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
        let known = BUGS.iter().chain(UNSEEN_BUGS).find(|(_, known, _)| *known == name);
        let Some((bug, ..)) = known else { panic!("RINGLOG_MUTANT: no bug is called {name:?}") };
        Some(*bug)
    };
    *CHOSEN.get_or_init(choose) == Some(bug)
}
