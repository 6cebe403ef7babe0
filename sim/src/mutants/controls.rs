//! Bugs that one layer must notice by itself: a layer that notices nothing proves nothing.
//!
//! Only a build that has the bugs knows them: no other may contain their names.

/// The layers, by their names, and what each must notice.
const CONTROLS: &[(&str, &[&str])] = &[
    (
        "errors",
        &["RetryFailedFlush", "CountFailedCommit", "GoOnAfterFailure", "LeaveThePendingWaiting"],
    ),
    (
        "crash states",
        &[
            "AcknowledgeAtWrite",
            "SkipFlushOfRewritten",
            "SkipDirectorySync",
            "SkipHeaderFlush",
            "SkipEpochBump",
            "ServeUnprovenTail",
            "RefuseTornTail",
        ],
    ),
    ("bit flips", &["AcceptEveryFrame", "SkipSectionChecksum", "SkipPadding"]),
    (
        "fuzz batch",
        &["AcceptEveryFrame", "SkipSectionChecksum", "SkipPadding", "SeedWithoutSegment"],
    ),
    ("fuzz segment", &["CutDurableSilently", "IgnoreProofInHeaders", "RefuseTornTail"]),
    ("fuzz manifest", &["AcceptDamagedManifest"]),
    ("fuzz small", &["AcceptDamagedManifest"]),
    ("fuzz index", &["TrustIndexLength"]),
    ("fuzz recovery", &["ForgetTrimInCatalogue"]),
    ("fuzz differential", &["CutDurableSilently", "IgnoreProofInHeaders"]),
    ("fuzz files", &["AcceptEveryFrame"]),
];

/// Each of them: the names of the layer and of the bug.
pub fn all() -> Vec<(String, String)> {
    CONTROLS
        .iter()
        .flat_map(|(layer, bugs)| bugs.iter().map(|bug| ((*layer).to_owned(), (*bug).to_owned())))
        .collect()
}
