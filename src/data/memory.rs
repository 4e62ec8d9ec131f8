//! How much memory there is, so that what cannot fit is refused rather than aborted by the allocator or killed.

use super::registry::readable_bytes;

/// Why `needed` bytes cannot be had, in words that follow them; `None` if they can.
pub(super) fn shortage(needed: u64) -> Option<String> {
    match available_memory() {
        Some(available) if needed > available => Some(format!("where {} are available", readable_bytes(available))),
        Some(_) => None,
        None => {
            let mut room = Vec::<u8>::new();
            let granted = usize::try_from(needed).is_ok_and(|bytes| room.try_reserve_exact(bytes).is_ok());
            // Otherwise the compiler may leave out an allocation that nobody uses, and take it for granted.
            std::hint::black_box(&room);
            (!granted).then(|| "which the system refuses".to_owned())
        }
    }
}

/// Bytes that can be allocated without swapping, by the system's own estimate; `None` where it publishes none.
#[must_use]
pub fn available_memory() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemAvailable` of `/proc/meminfo`, which counts in units of 1024 bytes.
fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        let text = "MemTotal:       24655080 kB\nMemFree:  1 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(parse(text), Some(22_000_000 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert!(!cfg!(target_os = "linux") || available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
