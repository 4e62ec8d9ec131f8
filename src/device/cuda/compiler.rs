//! Kernels for a device's architecture: compiled by NVRTC, kept on disk by the hash of source, options and compiler.
//!
//! Options are those of exact single precision: no fast division or roots, no flushing of small numbers.

use super::source;
use crate::error::{Error, Result};
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::path::Path;

/// The options beside the architecture.
const OPTIONS: [&str; 5] = ["--std=c++17", "--fmad=true", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"];

fn failure(finding: impl std::fmt::Display) -> Error {
    Error::Device(format!("the GPU's kernels could not be compiled: {finding}"))
}

/// The compiler's version, if the library is there.
#[must_use]
pub fn version() -> Option<(i32, i32)> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and both places are valid.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().ok()?;
    Some((major, minor))
}

/// Architectures that the compiler knows, 90 for sm_90.
fn known() -> Vec<i32> {
    let mut count = 0;
    // SAFETY: the library is there (its version was asked), the place is valid.
    if unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().is_err() {
        return Vec::new();
    }
    let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: as many places as were announced.
    match unsafe { sys::nvrtcGetSupportedArchs(architectures.as_mut_ptr()) }.result() {
        Ok(()) => architectures,
        Err(_) => Vec::new(),
    }
}

/// A program of NVRTC's, freed when it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and freed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles all kernels for an architecture, 90 for sm_90: machine code, or where the compiler is older than the device,
/// portable code that the driver finishes.
///
/// # Errors
/// If the compiler is not there, or what it says about the kernels.
pub fn compile(architecture: i32) -> Result<Vec<u8>> {
    if version().is_none() {
        return Err(failure(
            "libnvrtc was not found; it comes with the CUDA toolkit, or with the Python package nvidia-cuda-nvrtc (put its folder on LD_LIBRARY_PATH)",
        ));
    }
    let architectures = known();
    let is_known = architectures.contains(&architecture);
    let target = match architectures.iter().filter(|&&a| a <= architecture).max() {
        Some(newest) if !is_known => format!("--gpu-architecture=compute_{newest}"),
        _ => format!("--gpu-architecture=sm_{architecture}"),
    };
    let source = CString::new(source::program()).map_err(failure)?;
    let program = Program(result::create_program(&source, Some(c"parsimony.cu")).map_err(failure)?);
    let options: Vec<&str> = OPTIONS.into_iter().chain([target.as_str()]).collect();
    // SAFETY: the program was just made.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.iter().map(|&c| c as u8).collect();
        let log = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy).unwrap_or_default();
        return Err(failure(format!("{error}\n{log}")));
    }
    if !target.contains("sm_") {
        // SAFETY: the program was compiled.
        let text = unsafe { result::get_ptx(program.0) }.map_err(failure)?;
        return Ok(text.into_iter().map(|c| c as u8).collect());
    }
    let mut size = 0;
    // SAFETY: the program was compiled; the place is valid.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) }.result().map_err(failure)?;
    let mut code = vec![0_u8; size];
    // SAFETY: as many bytes as were announced.
    unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) }.result().map_err(failure)?;
    Ok(code)
}

/// The kernels for an architecture from the cache folder, or compiled and left there.
///
/// # Errors
/// As [`compile`]. A cache that cannot be read or written costs the compilation again, nothing else.
pub fn cached(architecture: i32, cache: Option<&Path>) -> Result<Vec<u8>> {
    let Some(cache) = cache else { return compile(architecture) };
    let file = cache.join(file_name(architecture, version()));
    if let Ok(code) = std::fs::read(&file).map(|bytes| verified(&bytes).map(<[u8]>::to_vec))
        && let Some(code) = code
    {
        return Ok(code);
    }
    let code = compile(architecture)?;
    let _ = keep(cache, &file, &code);
    Ok(code)
}

/// The file's name: hash of the source, the options and the compiler's version; architecture.
fn file_name(architecture: i32, version: Option<(i32, i32)>) -> String {
    let hash = Sha256::digest(format!("{}\n{OPTIONS:?}\n{version:?}", source::program()));
    let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("kernels-{hash}-sm_{architecture}.bin")
}

/// The code behind its hash, if it is whole.
fn verified(bytes: &[u8]) -> Option<&[u8]> {
    let (hash, code) = bytes.split_at_checked(32)?;
    (Sha256::digest(code).as_slice() == hash).then_some(code)
}

/// Writes a file whole or not at all.
fn keep(folder: &Path, file: &Path, code: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(Sha256::digest(code).as_slice())?;
    temporary.write_all(code)?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_file_is_used_only_whole_and_only_for_what_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(file_name(90, None));
        keep(folder.path(), &file, b"code").unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(verified(&bytes), Some(&b"code"[..]));
        assert_eq!(verified(&bytes[..bytes.len() - 1]), None);
        assert_eq!(verified(&bytes[..10]), None);
        assert_ne!(file_name(90, None), file_name(80, None));
        assert_ne!(file_name(90, Some((12, 8))), file_name(90, Some((13, 0))));
    }
}
