//! Reading everything back, as a user does, into what the oracle judges.

use ringlog::ReadError;
use ringlog::testing::DrivenShard;
use ringlog_disk::Disk;

use crate::oracle::{Outcome, Recovered};
use crate::{SimDisk, SimWorld};

/// All records of all streams, as a user reads them.
pub(crate) fn read_all<D: Disk>(world: &SimWorld, shard: &DrivenShard<D>) -> Outcome {
    let mut recovered = Recovered::default();
    for (id, name) in shard.streams() {
        let records = recovered.streams.entry(name.to_string()).or_default();
        let reader = match shard.read(Box::new(SimDisk::open(world)), *id, None) {
            Ok(reader) => reader,
            Err(error) => return Outcome::Refused(format!("read {name}: {error}")),
        };
        for item in reader {
            match item {
                Ok(record) => records.push((record.offset().0, record.payload().to_vec())),
                Err(ReadError::Corrupt { resumes_at, .. }) => {
                    let first = records.last().map_or(0, |(offset, _)| offset + 1);
                    let gap = first..resumes_at.map_or(u64::MAX, |offset| offset.0);
                    recovered.reported_gaps.entry(name.to_string()).or_default().push(gap);
                }
                Err(error) => return Outcome::Refused(format!("read {name}: {error}")),
            }
        }
    }
    Outcome::Opened(recovered)
}
