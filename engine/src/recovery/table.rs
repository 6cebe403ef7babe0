//! From evidence to decision: every combination has exactly one row.

/// What is found at the place where the next batch belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A batch that validates, continues the chain, and is of a life that may have written here.
    Batch,
    /// Anything else.
    Other,
}

/// What the next listed segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextSegment {
    /// A valid batch that continues the chain right here.
    Joins,
    /// Anything else, or there is none.
    DoesNotJoin,
}

/// Whether anything says that more than this was once durable: the manifest, or the header of a
/// valid batch of the same or a later life, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Something does.
    Beyond,
    /// Nothing does.
    NotBeyond,
}

/// What recovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Takes the batch and looks at the place behind it.
    Take,
    /// The segment ends here; goes on in the next one.
    NextSegment,
    /// The log ends here: what lies behind was never acknowledged as durable.
    Cut,
    /// Acknowledged data is damaged or missing here.
    Corrupt,
}

/// The table.
pub const fn decide(found: Found, next: NextSegment, proof: Proof) -> Decision {
    match (found, next, proof) {
        // A valid batch is taken whatever else there is.
        (Found::Batch, _, _) => Decision::Take,
        // The place where a segment ends holds a footer, zeros or the rest of an older life; the
        // batch that continues the chain lies in the next segment.
        (Found::Other, NextSegment::Joins, _) => Decision::NextSegment,
        // Something behind this place was durable once, so this place was, too.
        (Found::Other, NextSegment::DoesNotJoin, Proof::Beyond) => Decision::Corrupt,
        // A torn or missing batch that no flush had covered.
        (Found::Other, NextSegment::DoesNotJoin, Proof::NotBeyond) => Decision::Cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Corrupt, Cut, NextSegment as GoOn, Take};
    use NextSegment::{DoesNotJoin, Joins};
    use Proof::{Beyond, NotBeyond};

    #[test]
    fn every_row_is_walked() {
        let rows = [
            (Found::Batch, Joins, Beyond, Take),
            (Found::Batch, Joins, NotBeyond, Take),
            (Found::Batch, DoesNotJoin, Beyond, Take),
            (Found::Batch, DoesNotJoin, NotBeyond, Take),
            (Found::Other, Joins, Beyond, GoOn),
            (Found::Other, Joins, NotBeyond, GoOn),
            (Found::Other, DoesNotJoin, Beyond, Corrupt),
            (Found::Other, DoesNotJoin, NotBeyond, Cut),
        ];
        for (found, next, proof, decision) in rows {
            assert_eq!(decide(found, next, proof), decision, "{found:?} {next:?} {proof:?}");
        }
    }
}
