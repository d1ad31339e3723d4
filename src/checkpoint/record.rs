//! The bytes of one checkpoint: of one size, versioned, tied to its link, checksummed.
//!
//! ```text
//!   0  magic "MMREPLCP"          36  slot name, NUL-padded to 64 bytes
//!   8  format version  u32      100  position          u64
//!  12  target timeline u32      108  the link's beginning, i64
//!  16  target system   u64      116  the witness's number, u32; 0 where there is none
//!  24  source system   u64      120  the witness's time, i64
//!  32  source timeline u32      128  crc32 (IEEE) over the link's name and bytes 0..128
//! ```
//! All numbers are big-endian. Version 2 had no witness: its checksum stood at 116.
//! The link's name is part of the checksum, so a record that turns up under another key is refused.

use crate::catalog::position::Witness;
use crate::commit_time::CommitTime;
use crate::ids::{LinkName, SystemId, TimelineId};
use crate::lsn::Lsn;

const MAGIC: [u8; 8] = *b"MMREPLCP";
/// Raised whenever the layout changes; older readers then refuse the record instead of guessing.
const FORMAT_VERSION: u32 = 3;
const SLOT_BYTES: usize = 64;
const BODY_BYTES: usize = 128;
/// The version before, which is still read, and its size without the checksum.
const OLD_VERSION: u32 = 2;
const OLD_BODY_BYTES: usize = 116;
const CHECKSUM_BYTES: usize = 4;
/// Size of every record that is written.
pub(crate) const RECORD_BYTES: usize = BODY_BYTES + CHECKSUM_BYTES;

/// What the daemon remembers of one link beside the truth on the target (design: "Exactly once").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source's `end_lsn` up to which everything is durable on the target.
    pub position: Lsn,
    /// System identifier of the target server.
    pub target_system_id: SystemId,
    /// Timeline of the target server.
    pub target_timeline: TimelineId,
    /// System identifier of the source server.
    pub source_system_id: SystemId,
    /// Timeline of the source server.
    pub source_timeline: TimelineId,
    /// The replication slot on the source that feeds the link; at most 63 bytes (`NAMEDATALEN`).
    pub slot: String,
    /// When the link was set up, by the source's clock: positions of an earlier one do not count.
    pub began: CommitTime,
    /// A transaction of the source that the target had applied: a source that has it no longer was
    /// put back too, and then the position is of a history that is gone.
    pub witness: Option<Witness>,
}

impl Checkpoint {
    /// Whether both positions belong to the same servers, timelines and slot and can be compared.
    pub fn same_history(&self, other: &Self) -> bool {
        self.target_system_id == other.target_system_id
            && self.target_timeline == other.target_timeline
            && self.source_system_id == other.source_system_id
            && self.source_timeline == other.source_timeline
            && self.slot == other.slot
            && self.began == other.began
    }
}

/// Why bytes are not a checkpoint of this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The length is not that of a record.
    #[error("the record is {0} bytes long instead of {RECORD_BYTES}")]
    Length(usize),
    /// The first bytes are not ours.
    #[error("the record does not start with the mark of a checkpoint")]
    Magic,
    /// Damaged, or the record of another link.
    #[error("the record's checksum does not match")]
    Checksum,
    /// Written by another version of mmrepl.
    #[error("the record has format {0}, this program reads format {FORMAT_VERSION}")]
    Version(u32),
    /// The slot's name is not UTF-8 or, when writing, too long.
    #[error("the slot name does not fit a record: it must be UTF-8 of at most 63 bytes")]
    Slot,
}

/// Encodes `checkpoint` as the record of `link`.
pub(crate) fn encode(
    link: &LinkName,
    checkpoint: &Checkpoint,
) -> Result<[u8; RECORD_BYTES], RecordError> {
    let slot = checkpoint.slot.as_bytes();
    if slot.len() >= SLOT_BYTES || slot.contains(&0) {
        return Err(RecordError::Slot);
    }
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&MAGIC);
    record[8..12].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    record[12..16].copy_from_slice(&checkpoint.target_timeline.0.to_be_bytes());
    record[16..24].copy_from_slice(&checkpoint.target_system_id.0.to_be_bytes());
    record[24..32].copy_from_slice(&checkpoint.source_system_id.0.to_be_bytes());
    record[32..36].copy_from_slice(&checkpoint.source_timeline.0.to_be_bytes());
    record[36..36 + slot.len()].copy_from_slice(slot);
    record[100..108].copy_from_slice(&checkpoint.position.as_u64().to_be_bytes());
    let began = checkpoint.began.as_postgres_micros();
    record[108..116].copy_from_slice(&began.to_be_bytes());
    let witness = checkpoint.witness.unwrap_or_default();
    record[116..120].copy_from_slice(&witness.xid.to_be_bytes());
    let time = witness.time.as_postgres_micros();
    record[120..BODY_BYTES].copy_from_slice(&time.to_be_bytes());
    let crc = checksum(link, &record[..BODY_BYTES]);
    record[BODY_BYTES..].copy_from_slice(&crc.to_be_bytes());
    Ok(record)
}

/// Decodes and validates the record of `link`.
pub(crate) fn decode(link: &LinkName, bytes: &[u8]) -> Result<Checkpoint, RecordError> {
    const OLD_BYTES: usize = OLD_BODY_BYTES + CHECKSUM_BYTES;
    let (body, expected) = match bytes.len() {
        RECORD_BYTES => (BODY_BYTES, FORMAT_VERSION),
        OLD_BYTES => (OLD_BODY_BYTES, OLD_VERSION),
        other => return Err(RecordError::Length(other)),
    };
    let record = bytes;
    if record[..8] != MAGIC {
        return Err(RecordError::Magic);
    }
    if checksum(link, &record[..body]) != u32_at(record, body) {
        return Err(RecordError::Checksum);
    }
    let version = u32_at(record, 8);
    if version != expected {
        return Err(RecordError::Version(version));
    }
    let witness = (version == FORMAT_VERSION).then(|| Witness {
        xid: u32_at(record, 116),
        time: CommitTime::from_postgres_micros(u64_at(record, 120).cast_signed()),
    });
    Ok(Checkpoint {
        position: Lsn::new(u64_at(record, 100)),
        target_system_id: SystemId(u64_at(record, 16)),
        target_timeline: TimelineId(u32_at(record, 12)),
        source_system_id: SystemId(u64_at(record, 24)),
        source_timeline: TimelineId(u32_at(record, 32)),
        slot: slot_of(&record[36..36 + SLOT_BYTES])?,
        began: CommitTime::from_postgres_micros(u64_at(record, 108).cast_signed()),
        witness: witness.filter(|witness| witness.xid != 0),
    })
}

fn checksum(link: &LinkName, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(link.to_string().as_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn slot_of(padded: &[u8]) -> Result<String, RecordError> {
    let end = padded
        .iter()
        .position(|&byte| byte == 0)
        .ok_or(RecordError::Slot)?;
    let name = std::str::from_utf8(&padded[..end]).map_err(|_| RecordError::Slot)?;
    Ok(name.to_owned())
}

fn u32_at(record: &[u8], offset: usize) -> u32 {
    let bytes = record[offset..offset + 4]
        .try_into()
        .expect("four bytes were sliced");
    u32::from_be_bytes(bytes)
}

fn u64_at(record: &[u8], offset: usize) -> u64 {
    let bytes = record[offset..offset + 8]
        .try_into()
        .expect("eight bytes were sliced");
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn link() -> LinkName {
        "east->west".parse().unwrap()
    }

    proptest! {
        #[test]
        fn every_checkpoint_comes_back(
            position in any::<u64>(), target in any::<u64>(), source in any::<u64>(),
            timelines in any::<(u32, u32)>(), began in any::<i64>(), slot in "[a-z0-9_]{0,63}",
            witness in any::<Option<(u32, i64)>>(),
        ) {
            let checkpoint = Checkpoint {
                position: Lsn::new(position),
                target_system_id: SystemId(target),
                target_timeline: TimelineId(timelines.0),
                source_system_id: SystemId(source),
                source_timeline: TimelineId(timelines.1),
                slot,
                began: CommitTime::from_postgres_micros(began),
                witness: witness.filter(|(xid, _)| *xid != 0).map(|(xid, time)| Witness {
                    xid,
                    time: CommitTime::from_postgres_micros(time),
                }),
            };
            let record = encode(&link(), &checkpoint).unwrap();
            prop_assert_eq!(decode(&link(), &record), Ok(checkpoint));
        }

        #[test]
        fn a_flipped_bit_is_never_read_as_valid(position in any::<u64>(), bit in 0..RECORD_BYTES * 8) {
            let mut record = encode(&link(), &sample(position)).unwrap();
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&link(), &record).is_err());
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&link(), &bytes).is_err());
        }
    }

    fn sample(position: u64) -> Checkpoint {
        Checkpoint {
            position: Lsn::new(position),
            target_system_id: SystemId(7),
            target_timeline: TimelineId(1),
            source_system_id: SystemId(8),
            source_timeline: TimelineId(2),
            slot: "mmrepl_shop_west".into(),
            began: CommitTime::default(),
            witness: None,
        }
    }

    #[test]
    fn a_record_of_the_version_before_is_read() {
        let mut old = encode(&link(), &sample(5)).unwrap()[..OLD_BODY_BYTES].to_vec();
        old[8..12].copy_from_slice(&OLD_VERSION.to_be_bytes());
        let crc = checksum(&link(), &old);
        old.extend(crc.to_be_bytes());
        assert_eq!(decode(&link(), &old), Ok(sample(5)));
    }

    #[test]
    fn the_record_of_another_link_is_refused() {
        let record = encode(&link(), &sample(1)).unwrap();
        let other: LinkName = "west->east".parse().unwrap();
        assert_eq!(decode(&other, &record), Err(RecordError::Checksum));
    }

    #[test]
    fn a_slot_name_that_does_not_fit_is_refused() {
        let mut checkpoint = sample(1);
        checkpoint.slot = "s".repeat(64);
        assert_eq!(encode(&link(), &checkpoint), Err(RecordError::Slot));
    }

    #[test]
    fn history_is_servers_timelines_and_slot() {
        let one = sample(1);
        assert!(one.same_history(&sample(9)));
        assert!(!one.same_history(&Checkpoint {
            target_timeline: TimelineId(2),
            ..sample(1)
        }));
        assert!(!one.same_history(&Checkpoint {
            slot: "other".into(),
            ..sample(1)
        }));
    }
}
