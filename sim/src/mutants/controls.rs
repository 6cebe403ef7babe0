//! Bugs that one layer must notice by itself: a layer that notices nothing proves nothing.

use super::layers::{LAYERS, Layer};

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

/// Each of them: the layer and the name of the bug.
///
/// # Errors
/// A layer is not known.
pub(super) fn all() -> Result<Vec<(&'static Layer, &'static str)>, String> {
    let mut all = Vec::new();
    for (name, bugs) in CONTROLS {
        let layer = LAYERS.iter().find(|layer| layer.name == *name);
        let layer = layer.ok_or_else(|| format!("no layer is called {name:?}"))?;
        all.extend(bugs.iter().map(|bug| (layer, *bug)));
    }
    Ok(all)
}
