//! The disk profile of a log: measured when the log is created, and again when it has been moved
//! or the profile has been lost; stored beside the file `log`; the settings of commits come from it
//! where the options do not say otherwise.
//!
//! Never evidence of anything: without a profile a log works as well, with defaults. Measuring
//! leaves no file behind, and a stored profile is replaced only after the whole log was found
//! sound.

use std::path::Path;

use ringlog_disk::profile::commits_in_flight_unmeasured;
use ringlog_disk::{
    Choice, Dir, DiskError, DiskErrorKind, DiskProfile, Effort, IoKind, Op, Place, Primitive,
    profile_disk, profile_disk_until,
};

use crate::clock::wall_ns;
use crate::error::OpenError;
use crate::format::profile::StoredProfile;
use crate::ids::LogId;
use crate::limits::COMMIT_BYTES_DEFAULT;
use crate::names;
use crate::open::{find_meta, reading_disk};
use crate::options::Options;
use crate::recovery::ask;

/// The largest file `disk-profile` that is read.
const PROFILE_BYTES_MAX: u64 = 4096;

/// How a log commits, and why: the option, where it is set, else what suits the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitSettings {
    /// How a commit is made durable.
    pub primitive: Choice<Primitive>,
    /// How many commits are in flight at most, per shard.
    pub commits_in_flight: Choice<usize>,
    /// How many bytes a commit carries at most.
    pub commit_bytes: Choice<usize>,
}

impl CommitSettings {
    /// Those that suit a disk, whatever options say.
    pub fn of(profile: &DiskProfile) -> Self {
        Self {
            primitive: profile.primitive.clone(),
            commits_in_flight: profile.commits_in_flight.clone(),
            commit_bytes: profile.commit_bytes.clone(),
        }
    }

    /// What holds on this file system, with this profile if there is one.
    pub(crate) fn new(
        options: &Options,
        profile: Option<&DiskProfile>,
        file_system: Option<&str>,
    ) -> Self {
        fn choose<T: Clone>(
            option: Option<T>,
            profiled: Option<&Choice<T>>,
            default: T,
        ) -> Choice<T> {
            match (option, profiled) {
                (Some(value), _) => Choice { value, why: "set by an option".to_owned() },
                (None, Some(choice)) => choice.clone(),
                (None, None) => Choice { value: default, why: "the default".to_owned() },
            }
        }
        let in_flight = commits_in_flight_unmeasured(file_system.unwrap_or_default());
        Self {
            primitive: choose(options.primitive, profile.map(|p| &p.primitive), Primitive::Dsync),
            commits_in_flight: choose(
                options.commits_in_flight,
                profile.map(|p| &p.commits_in_flight),
                in_flight,
            ),
            commit_bytes: choose(
                options.commit_bytes,
                profile.map(|p| &p.commit_bytes),
                COMMIT_BYTES_DEFAULT,
            ),
        }
    }

    /// The options with these settings filled in.
    pub(crate) fn fill(&self, options: Options) -> Options {
        Options {
            primitive: Some(self.primitive.value),
            commits_in_flight: Some(self.commits_in_flight.value),
            commit_bytes: Some(self.commit_bytes.value),
            ..options
        }
    }
}

/// The profile and the settings of an open.
#[derive(Debug)]
pub(crate) struct Profiled {
    pub(crate) profile: Option<DiskProfile>,
    pub(crate) settings: CommitSettings,
    /// What there is to say about the profile.
    note: Option<String>,
    /// To be stored once the log has been found sound.
    fresh: Option<StoredProfile>,
}

/// The profile for an open: the stored one, or, where there is none that holds and `measure` says
/// so, a new one. `is_new`: the log has just been created, so that none is no surprise.
///
/// Fails only when the device fails.
pub(crate) fn find(
    place: &Place,
    log: LogId,
    options: &Options,
    is_new: bool,
    measure: bool,
) -> Result<Profiled, DiskError> {
    let Some(dir) = place.as_dir() else {
        let settings = CommitSettings::new(options, None, None);
        return Ok(Profiled { profile: None, settings, note: None, fresh: None });
    };
    let file_system = dir.file_system()?;
    let found = |profile: Option<DiskProfile>, note| {
        let settings = CommitSettings::new(options, profile.as_ref(), Some(&file_system));
        Profiled { profile, settings, note, fresh: None }
    };
    let why = match load(place, dir, log)? {
        Ok(profile) => return Ok(found(Some(profile), None)),
        Err(None) if is_new => None,
        Err(None) if measure => Some("it had no profile".to_owned()),
        Err(why) => why,
    };
    if !measure {
        let note = why.map(|why| format!("The disk profile is not used: {why}."));
        return Ok(found(None, note));
    }
    match profile_disk(dir, options.io, Effort::Quick) {
        Ok(profile) => {
            let fresh = Some(stored(log, &profile));
            let note = why.map(|why| format!("The disk was measured again: {why}."));
            Ok(Profiled { fresh, ..found(Some(profile), note) })
        }
        Err(error) if error.kind == DiskErrorKind::Io => Err(error),
        // Measuring needs a little room. The log says itself what it lacks.
        Err(error) => {
            let note = format!("The disk could not be measured ({error}): defaults are used.");
            Ok(found(None, Some(note)))
        }
    }
}

impl Profiled {
    /// Keeps a profile that was measured just now, and gives what there is to say. Where keeping
    /// it fails, it is measured again at the next open.
    pub(crate) fn keep(&mut self, place: &Place) -> Option<String> {
        if let Some(fresh) = self.fresh.take()
            && let Err(error) = store(place, &fresh)
        {
            return Some(format!("The disk profile could not be stored ({error})."));
        }
        self.note.take()
    }
}

fn stored(log: LogId, profile: &DiskProfile) -> StoredProfile {
    StoredProfile {
        log,
        measured_ns: wall_ns(),
        place: profile.place.clone(),
        figures: profile.figures.clone(),
    }
}

fn store(place: &Place, profile: &StoredProfile) -> Result<(), DiskError> {
    let mut disk = reading_disk(place, IoKind::Blocking)?;
    ask(&mut disk, Op::Replace { name: names::disk_profile(), content: profile.encode() })?;
    Ok(())
}

/// The stored profile; or why the one that there is does not hold here, `None` where there is none.
fn load(place: &Place, dir: &Dir, log: LogId) -> Result<Loaded, DiskError> {
    let file = match place.load(names::disk_profile(), PROFILE_BYTES_MAX) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Err(None)),
        Err(error) => return Ok(Err(Some(error.to_string()))),
    };
    let stored = match StoredProfile::decode(&file) {
        Ok(stored) => stored,
        Err(refused) => return Ok(Err(Some(refused.to_string()))),
    };
    if stored.log != log {
        return Ok(Err(Some(format!("the profile is that of log {}", stored.log))));
    }
    let profile = DiskProfile::new(stored.place, stored.figures);
    Ok(match profile.differs_from(dir)? {
        None => Ok(profile),
        Some(why) => Err(Some(format!("the profile does not hold here, {why}"))),
    })
}

type Loaded = Result<DiskProfile, Option<String>>;

/// The profile that a log has stored, if it has one that holds where the log lies now. Changes
/// and locks nothing.
pub(crate) fn look(place: &Place, log: LogId) -> Option<DiskProfile> {
    load(place, place.as_dir()?, log).ok()?.ok()
}

/// Measures the disk below a directory that can be written to, whether or not there is a log in it:
/// on a small file, which is removed again. `stop` is asked between any two commits; once it says
/// so, what has been measured until then is judged.
///
/// # Errors
/// [`OpenError::NotFound`] when there is no such directory, [`OpenError::Disk`] when it cannot be
/// written to, has no room for a few MiB, or the device fails.
pub fn measure_disk(
    dir: impl AsRef<Path>,
    io: IoKind,
    effort: Effort,
    stop: &dyn Fn() -> bool,
) -> Result<DiskProfile, OpenError> {
    let dir = crate::open::open_dir(dir.as_ref(), false)?;
    Ok(profile_disk_until(&dir, io, effort, stop)?)
}

/// Measures the disk below a log and keeps the profile there, unless `stop` has ended it early; it
/// is used from the next open on.
///
/// # Errors
/// See [`measure_disk`]; [`OpenError::NotFound`] when there is no log, [`OpenError::Locked`] when
/// it is open for writing. Then nothing was changed.
pub fn measure_disk_of_log(
    dir: impl AsRef<Path>,
    io: IoKind,
    effort: Effort,
    stop: &dyn Fn() -> bool,
) -> Result<DiskProfile, OpenError> {
    let path = dir.as_ref();
    let place = Place::Dir(crate::open::open_dir(path, false)?);
    let Some(meta) = find_meta(path, &place)? else {
        return Err(OpenError::NotFound(path.to_owned()));
    };
    if !place.lock_exclusive(crate::open::LOCK_PATIENCE)? {
        return Err(OpenError::Locked(path.to_owned()));
    }
    let Some(dir) = place.as_dir() else { return Err(OpenError::NotFound(path.to_owned())) };
    let profile = profile_disk_until(dir, io, effort, stop)?;
    if stop() {
        return Ok(profile);
    }
    store(&place, &stored(meta.log, &profile))?;
    Ok(profile)
}
