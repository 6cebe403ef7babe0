//! What a power cut, or the death of the process, leaves behind; and the enumeration of all that
//! a power cut may leave.
//!
//! The fate of each volatile *unit* (the sectors of one write in one area of
//! [`Crash::tear_bytes`]) is independent of every other's. Units are counted in the order in which
//! their writes were submitted.

use crate::rng::Rng;

/// Which volatile units reach the media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All, also those of writes in flight.
    All,
    /// None.
    Nothing,
    /// Each by itself, so many times in a million.
    Random(u32),
    /// A prefix, in the order of submission, of a length chosen by the seed.
    Prefix,
    /// All but one, chosen by the seed.
    DropOne,
    /// Only one, chosen by the seed.
    KeepOne,
    /// Those that are marked; what lies beyond the mask is lost.
    Mask(Vec<bool>),
}

/// Which changes of names reach the media. Changes that concern the same name are one group, in
/// order; a rename joins the groups of its two names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepNames {
    /// All, also those that were submitted and not carried out yet.
    All,
    /// None.
    Nothing,
    /// A prefix of all, of a length chosen by the seed.
    Prefix,
    /// Of each group a prefix of a length chosen by the seed.
    Groups,
}

/// A power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What becomes of data.
    pub keep: Keep,
    /// What becomes of names.
    pub names: KeepNames,
    /// What the device writes whole or not at all: 512 or 4096.
    pub tear_bytes: u32,
    /// Decides whatever is left to chance.
    pub seed: u64,
}

impl Crash {
    /// Everything submitted reaches the media.
    pub fn keeping_all() -> Self {
        Self { keep: Keep::All, names: KeepNames::All, tear_bytes: 512, seed: 0 }
    }

    /// Nothing volatile survives.
    pub fn losing_all() -> Self {
        Self { keep: Keep::Nothing, names: KeepNames::Nothing, tear_bytes: 512, seed: 0 }
    }

    /// Exactly these units survive; no name that was not synced does.
    pub fn masked(mask: Vec<bool>, tear_bytes: u32) -> Self {
        Self { keep: Keep::Mask(mask), names: KeepNames::Nothing, tear_bytes, seed: 0 }
    }

    /// A cut chosen by the seed, over all policies.
    pub fn seeded(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let keep = match rng.below(8) {
            0 => Keep::All,
            1 => Keep::Nothing,
            2 => Keep::Prefix,
            3 => Keep::DropOne,
            4 => Keep::KeepOne,
            _ => Keep::Random(rng.below(1_000_001) as u32),
        };
        let names = match rng.below(5) {
            0 => KeepNames::All,
            1 => KeepNames::Nothing,
            2 => KeepNames::Prefix,
            _ => KeepNames::Groups,
        };
        let tear_bytes = if rng.coin() { 512 } else { 4096 };
        Self { keep, names, tear_bytes, seed: rng.next_u64() }
    }
}

impl Keep {
    /// Decides about `units` units.
    pub(crate) fn decide(&self, units: usize, rng: &mut Rng) -> Vec<bool> {
        let chosen = rng.index(units);
        match self {
            Self::All => vec![true; units],
            Self::Nothing => vec![false; units],
            Self::Random(per_million) => (0..units).map(|_| rng.chance(*per_million)).collect(),
            Self::Prefix => {
                let kept = rng.index(units + 1);
                (0..units).map(|i| i < kept).collect()
            }
            Self::DropOne => (0..units).map(|i| i != chosen).collect(),
            Self::KeepOne => (0..units).map(|i| i == chosen).collect(),
            Self::Mask(mask) => (0..units).map(|i| mask.get(i) == Some(&true)).collect(),
        }
    }
}

impl KeepNames {
    /// How many of `queued` changes that were submitted have been carried out at the cut.
    pub(crate) fn started(&self, queued: usize, rng: &mut Rng) -> usize {
        match self {
            Self::All => queued,
            Self::Nothing => 0,
            Self::Prefix | Self::Groups => rng.index(queued + 1),
        }
    }
}

/// What becomes of the writes in flight when the process dies and the machine goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// All of them land.
    LandAll,
    /// None of them does.
    LandNone,
    /// Each lands fully, partly or not at all.
    Random,
    /// They land later, when [`crate::SimWorld::land_late_writes`] is called.
    Late,
}

/// At which side of an operation a scripted cut comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When it has just been submitted: it may have happened, in part or not at all.
    Submission,
    /// When it has been carried out, and before anybody hears of it.
    Completion,
}

/// All the states that a cut may leave of `units` volatile units, as masks for [`Keep::Mask`]:
/// every subset while `units` is at most `exhaustive_up_to` (and below 64); beyond that all
/// prefixes, all but one, only one, every pair lost, and `random` random subsets.
pub fn crash_states(
    units: usize,
    exhaustive_up_to: usize,
    random: usize,
    seed: u64,
) -> Box<dyn Iterator<Item = Vec<bool>>> {
    if units <= exhaustive_up_to && units < 64 {
        let all = 0..1_u64 << units;
        return Box::new(all.map(move |bits| (0..units).map(|i| bits >> i & 1 == 1).collect()));
    }
    let mask = move |keep: &dyn Fn(usize) -> bool| (0..units).map(keep).collect::<Vec<bool>>();
    let prefixes = (0..=units).map(move |n| mask(&|i| i < n));
    let dropped = (0..units).map(move |n| mask(&|i| i != n));
    let kept = (0..units).map(move |n| mask(&|i| i == n));
    let pairs = (0..units)
        .flat_map(move |a| (a + 1..units).map(move |b| (a, b)))
        .map(move |(a, b)| mask(&|i| i != a && i != b));
    let mut rng = Rng::new(seed);
    let subsets = (0..random).map(move |_| {
        let per_million = rng.below(1_000_001) as u32;
        (0..units).map(|_| rng.chance(per_million)).collect()
    });
    Box::new(prefixes.chain(dropped).chain(kept).chain(pairs).chain(subsets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn few_units_are_enumerated_in_full() {
        let states: BTreeSet<Vec<bool>> = crash_states(5, 16, 0, 0).collect();
        assert_eq!(states.len(), 32);
        assert_eq!(crash_states(0, 16, 0, 0).collect::<Vec<_>>(), [Vec::<bool>::new()]);
    }

    #[test]
    fn many_units_are_sampled() {
        let states: Vec<Vec<bool>> = crash_states(20, 16, 7, 1).collect();
        assert_eq!(states.len(), 21 + 20 + 20 + 190 + 7);
        assert!(states.iter().all(|s| s.len() == 20));
    }

    #[test]
    fn each_policy_keeps_what_it_says() {
        let mut rng = Rng::new(3);
        let mut count = |keep: Keep| {
            let decided = keep.decide(10, &mut rng);
            (decided.len(), decided.iter().filter(|k| **k).count())
        };
        assert_eq!(count(Keep::All), (10, 10));
        assert_eq!(count(Keep::Nothing), (10, 0));
        assert_eq!(count(Keep::DropOne), (10, 9));
        assert_eq!(count(Keep::KeepOne), (10, 1));
        assert_eq!(count(Keep::Random(1_000_000)), (10, 10));
        assert_eq!(count(Keep::Mask(vec![false, true])), (10, 1));
        for _ in 0..20 {
            let decided = Keep::Prefix.decide(10, &mut rng);
            assert!(decided.is_sorted_by(|a, b| a >= b), "{decided:?}");
        }
    }

    #[test]
    fn any_unit_can_be_the_one() {
        let mut rng = Rng::new(3);
        let mut chosen = |keep: Keep, kept: bool| -> BTreeSet<usize> {
            let one = |rng: &mut Rng| keep.decide(4, rng).iter().position(|k| *k == kept);
            (0..100).filter_map(|_| one(&mut rng)).collect()
        };
        assert_eq!(chosen(Keep::DropOne, false).len(), 4);
        assert_eq!(chosen(Keep::KeepOne, true).len(), 4);
    }

    #[test]
    fn seeds_reach_every_policy() {
        let crashes: Vec<Crash> = (0..200).map(Crash::seeded).collect();
        for keep in [Keep::All, Keep::Nothing, Keep::Prefix, Keep::DropOne, Keep::KeepOne] {
            assert!(crashes.iter().any(|c| c.keep == keep), "{keep:?}");
        }
        for names in [KeepNames::All, KeepNames::Nothing, KeepNames::Prefix, KeepNames::Groups] {
            assert!(crashes.iter().any(|c| c.names == names), "{names:?}");
        }
        assert_eq!(Crash::seeded(7), Crash::seeded(7));
    }
}
