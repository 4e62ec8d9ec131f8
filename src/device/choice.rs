//! Which device the models of this process live on: the CPU, unless it chose a GPU.
//!
//! What is wanted (`auto`, `cpu`, `cuda`, `cuda:1`) is settled once, before anything runs and without opening a GPU; the process
//! of a cell then opens the one that it was given. There is no falling back: a GPU that was asked for by name and cannot be used
//! is an error.

use super::cpu::Cpu;
use super::cuda::{Cuda, probe};
use super::{Backend, Device};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// A device by name: `cpu`, `cuda:0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU by its number in the driver's order.
    Cuda(usize),
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceWish {
    /// A GPU for models that can live on one if there is one that can be used, else the CPU.
    Auto,
    /// This one.
    Named(DeviceName),
}

impl DeviceWish {
    /// What the words are.
    pub const ACCEPTS: &'static str = "\"cpu\", \"cuda\", \"cuda:N\" or \"auto\"";

    /// The device, after a look at what is there.
    ///
    /// # Errors
    /// [`Error::Config`] if a GPU is asked for that is not there or cannot be used, and why.
    pub fn settle(self) -> Result<DeviceName> {
        let ordinal = match self {
            Self::Named(DeviceName::Cpu) => return Ok(DeviceName::Cpu),
            Self::Named(DeviceName::Cuda(ordinal)) => Some(ordinal),
            Self::Auto => None,
        };
        let found = probe();
        let refusal = match (&found.obstacle, ordinal) {
            (Some(obstacle), _) => Some(obstacle.clone()),
            (None, Some(ordinal)) if ordinal >= found.gpus.len() => {
                Some(format!("there is no such GPU: the driver finds {}, counted from 0", found.gpus.len()))
            }
            _ => None,
        };
        match (ordinal, refusal) {
            (ordinal, None) => Ok(DeviceName::Cuda(ordinal.unwrap_or(0))),
            (None, Some(_)) => Ok(DeviceName::Cpu),
            (Some(_), Some(refusal)) => Err(Error::config(
                format!("device {self}"),
                refusal,
                "`parsimony doctor` says what was found; take --device cpu, or --device auto for a GPU where there is one",
            )),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl fmt::Display for DeviceWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl FromStr for DeviceWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = |number: &str| number.parse().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Named(DeviceName::Cpu)),
            "cuda" => Some(Self::Named(DeviceName::Cuda(0))),
            _ => text.strip_prefix("cuda:").and_then(ordinal).map(|n| Self::Named(DeviceName::Cuda(n))),
        }
        .ok_or_else(|| format!("a device is {}", Self::ACCEPTS))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse()? {
            DeviceWish::Named(name) => Ok(name),
            DeviceWish::Auto => Err("a device is \"cpu\" or \"cuda:N\"".into()),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

static CURRENT: Mutex<Option<Device>> = Mutex::new(None);

/// Opens a device for the models that this process builds from now on. A GPU's kernels come from the cache folder or go
/// there.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn use_device(name: DeviceName, cache: Option<&Path>) -> Result<()> {
    let device = match name {
        DeviceName::Cpu => Device::new(Cpu::default()),
        DeviceName::Cuda(ordinal) => Device::new(Cuda::open(ordinal, cache)?),
    };
    make_current(device);
    Ok(())
}

/// Builds on a device that was opened before.
pub fn make_current(device: Device) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(device);
}

/// The device that models are built on.
#[must_use]
pub fn current() -> Device {
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    current.clone().unwrap_or_else(|| Device::new(Cpu::default()))
}

/// Builds on a backend of the caller's: for tests of models on devices that are none.
pub fn use_backend(backend: impl Backend + 'static) {
    make_current(Device::new(backend));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_devices_are_read_and_written() {
        for (text, wish) in [
            ("auto", DeviceWish::Auto),
            ("cpu", DeviceWish::Named(DeviceName::Cpu)),
            ("cuda:0", DeviceWish::Named(DeviceName::Cuda(0))),
            ("cuda:12", DeviceWish::Named(DeviceName::Cuda(12))),
        ] {
            assert_eq!(text.parse(), Ok(wish));
            assert_eq!(wish.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceWish::Named(DeviceName::Cuda(0))));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda: 1", "CUDA", "cuda:99999999999999999999"] {
            assert!(text.parse::<DeviceWish>().is_err(), "{text}");
        }
        assert!(DeviceName::try_from("auto".to_owned()).is_err());
    }

    /// Whatever this machine has, a GPU far beyond is refused and the CPU is there.
    #[test]
    fn a_device_that_is_not_there_is_refused_in_words() {
        assert_eq!(DeviceWish::Named(DeviceName::Cpu).settle().unwrap(), DeviceName::Cpu);
        let error = DeviceWish::Named(DeviceName::Cuda(4000)).settle().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("device cuda:4000: "), "{error}");
        assert!(error.to_string().contains("--device cpu"), "{error}");
        let auto = DeviceWish::Auto.settle().unwrap();
        assert_eq!(auto == DeviceName::Cpu, probe().obstacle.is_some());
    }
}
