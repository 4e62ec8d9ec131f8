//! Extracts one member of a zip archive (PKWARE APPNOTE 6.3: end of central directory, central directory, local
//! header), stored or deflated, with its size and CRC-32 checked. That is all the registered archives need; archives
//! with encryption or of more than 4 GB (zip64) are refused by name.

use crate::error::Error;
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const ENTRY_SIGNATURE: &[u8] = b"PK\x01\x02";
const ENTRY_LENGTH: usize = 46;
const LOCAL_SIGNATURE: &[u8] = b"PK\x03\x04";
const LOCAL_LENGTH: usize = 30;
/// A value that stands for "see the zip64 record".
const ZIP64: u64 = 0xFFFF_FFFF;

/// Why a member could not be extracted.
#[derive(Debug)]
pub(super) enum ZipError {
    /// The archive is not as it should be: the finding.
    Archive(String),
    /// Reading the archive failed.
    Read(io::Error),
    /// Writing the member failed, or the user asked to stop.
    Write(Error),
}

impl From<io::Error> for ZipError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Archive("the zip archive is truncated".into());
        }
        Self::Read(error)
    }
}

/// A member as the central directory describes it.
#[derive(Debug)]
pub(super) struct Member {
    method: u64,
    crc: u64,
    compressed: u64,
    /// Size in bytes once extracted.
    pub(super) bytes: u64,
    /// Offset of the local header.
    offset: u64,
}

/// A little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Finds `name` in the archive's central directory.
pub(super) fn find_member(archive: &mut File, name: &str) -> Result<Member, ZipError> {
    let broken = |finding: &str| ZipError::Archive(finding.to_owned());
    let length = archive.seek(SeekFrom::End(0))?;
    // The end record is last but for a comment of at most 65,535 bytes.
    let start = length.saturating_sub(END_LENGTH as u64 + 0xFFFF);
    let mut tail = Vec::new();
    archive.seek(SeekFrom::Start(start))?;
    archive.read_to_end(&mut tail)?;
    let end = tail
        .windows(END_LENGTH)
        .rposition(|window| window.starts_with(END_SIGNATURE))
        .ok_or_else(|| broken("this is no zip archive, or it is truncated (it has no end record)"))?;
    let (count, size, offset) =
        (number::<2>(&tail, end + 10), number::<4>(&tail, end + 12), number::<4>(&tail, end + 16));
    if count == 0xFFFF || size == ZIP64 || offset == ZIP64 {
        return Err(broken("zip64 archives are not supported"));
    }
    if offset + size > length {
        return Err(broken("the zip archive's directory lies beyond its end"));
    }
    let mut directory = vec![0; size as usize];
    archive.seek(SeekFrom::Start(offset))?;
    archive.read_exact(&mut directory)?;
    let mut rest = directory.as_slice();
    for _ in 0..count {
        if rest.len() < ENTRY_LENGTH || !rest.starts_with(ENTRY_SIGNATURE) {
            return Err(broken("the zip archive's directory is damaged"));
        }
        let name_length = number::<2>(rest, 28) as usize;
        let entry_length = ENTRY_LENGTH + name_length + (number::<2>(rest, 30) + number::<2>(rest, 32)) as usize;
        if rest.len() < entry_length {
            return Err(broken("the zip archive's directory is damaged"));
        }
        if &rest[ENTRY_LENGTH..ENTRY_LENGTH + name_length] == name.as_bytes() {
            let member = Member {
                method: number::<2>(rest, 10),
                crc: number::<4>(rest, 16),
                compressed: number::<4>(rest, 20),
                bytes: number::<4>(rest, 24),
                offset: number::<4>(rest, 42),
            };
            if number::<2>(rest, 8) & 1 != 0 {
                return Err(broken("the zip archive is encrypted"));
            }
            if [member.compressed, member.bytes, member.offset].contains(&ZIP64) {
                return Err(broken("zip64 archives are not supported"));
            }
            if ![0, 8].contains(&member.method) {
                return Err(broken("the zip archive is compressed by another method than deflate"));
            }
            return Ok(member);
        }
        rest = &rest[entry_length..];
    }
    Err(ZipError::Archive(format!("the zip archive has no member `{name}`")))
}

/// Writes the member's bytes by `write` and checks their number and CRC-32.
pub(super) fn extract(
    archive: &mut File,
    member: &Member,
    mut write: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), ZipError> {
    let mut local = [0; LOCAL_LENGTH];
    archive.seek(SeekFrom::Start(member.offset))?;
    archive.read_exact(&mut local)?;
    if !local.starts_with(LOCAL_SIGNATURE) {
        return Err(ZipError::Archive("the zip archive's member does not begin where its directory says".into()));
    }
    let skip = number::<2>(&local, 26) + number::<2>(&local, 28);
    archive.seek_relative(skip as i64)?;
    let packed = BufReader::new(archive.take(member.compressed));
    let mut source: Box<dyn Read> =
        if member.method == 0 { Box::new(packed) } else { Box::new(DeflateDecoder::new(packed)) };
    let mut crc = Crc::new();
    let mut buffer = vec![0; 1 << 17];
    let mut written = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The decoder reports damage as invalid input or data; what the disk refuses comes with another kind.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                return Err(ZipError::Archive(format!("the zip archive's member is damaged after {written} bytes")));
            }
            Err(error) => return Err(error.into()),
        };
        written += count as u64;
        if written > member.bytes {
            break;
        }
        crc.update(&buffer[..count]);
        write(&buffer[..count]).map_err(ZipError::Write)?;
    }
    if written != member.bytes || u64::from(crc.sum()) != member.crc {
        return Err(ZipError::Archive("the zip archive's member has another size or checksum than stated".into()));
    }
    Ok(())
}
