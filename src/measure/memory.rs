//! Memory of this process as the kernel counts it: resident, its peak, and the anonymous part (what is not mapped from
//! files).

use std::fs;

/// Bytes of this process; zero where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Resident at most, ever.
    pub peak_resident: u64,
    /// Resident now and not backed by files.
    pub anonymous: u64,
}

impl Memory {
    /// Reads the numbers (`/proc/self/status`).
    #[must_use]
    pub fn now() -> Self {
        fs::read_to_string("/proc/self/status").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(status: &str) -> Self {
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Self {
            resident: bytes("VmRSS").unwrap_or_default(),
            peak_resident: bytes("VmHWM").unwrap_or_default(),
            anonymous: bytes("RssAnon").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let memory = Memory::parse("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t 512 kB\n");
        assert_eq!(memory, Memory { resident: 1 << 20, peak_resident: 2 << 20, anonymous: 1 << 19 });
        assert_eq!(Memory::parse("VmRSS: none"), Memory::default());
    }
}
