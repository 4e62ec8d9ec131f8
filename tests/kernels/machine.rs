//! A machine with CUDA that is none: kernels run on the CPU, compiled as C++ from the same source behind `emulation.h`.
//!
//! Memory that is taken is full of NaN and lies between guards, which are looked at after every launch.

use parsimony::device::Factors;
use parsimony::device::cuda::machine::{Argument, DeviceMatrix, Factor, Machine, THREADS};
use parsimony::device::cuda::source;
use parsimony::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// Bytes of a guard.
const GUARD: usize = 64;
const GUARD_WORD: u64 = 0xa5a5_5a5a_dead_beef;

#[derive(Debug)]
struct Piece {
    words: Vec<u64>,
    bytes: usize,
}

impl Piece {
    fn new(bytes: usize) -> Self {
        let guard = GUARD / 8;
        let mut words = vec![u64::MAX; bytes.div_ceil(8) + 2 * guard];
        words[..guard].fill(GUARD_WORD);
        let end = words.len() - guard;
        words[end..].fill(GUARD_WORD);
        Self { words, bytes }
    }

    fn address(&self) -> u64 {
        self.words.as_ptr() as u64 + GUARD as u64
    }

    fn is_whole(&self) -> bool {
        let (guard, end) = (GUARD / 8, self.words.len() - GUARD / 8);
        // What lies between the last byte and the guard was never written either.
        let rest = self.bytes % 8;
        let tail = if rest == 0 { u64::MAX } else { self.words[end - 1] | ((1 << (8 * rest)) - 1) };
        tail == u64::MAX && self.words[..guard].iter().chain(&self.words[end..]).all(|&word| word == GUARD_WORD)
    }
}

/// What an emulation has met.
#[derive(Debug, Default)]
pub struct Seen {
    pieces: BTreeMap<u64, Piece>,
    /// Kernels that ran.
    pub kernels: BTreeSet<&'static str>,
    /// Launches so far, and times that the host waited for numbers.
    pub launches: usize,
    pub waits: usize,
    /// Writes beyond memory that was taken.
    pub violations: Vec<String>,
}

/// An emulated machine. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Emulation {
    launch: Launch,
    /// In which order threads take turns: 0 forwards, 1 backwards, 2 in strides.
    turns: u32,
    /// Memory that may be taken in all.
    limit: usize,
    has_library: bool,
    pub seen: Arc<Mutex<Seen>>,
}

impl Emulation {
    /// A machine whose threads take turns in an order, if there is a C++ compiler; one that is missing is an error with
    /// `PARSIMONY_REQUIRE_DATA`.
    pub fn new(turns: u32) -> Option<Self> {
        static LAUNCH: OnceLock<Option<Launch>> = OnceLock::new();
        let launch = (*LAUNCH.get_or_init(build))?;
        Some(Self { launch, turns, limit: usize::MAX, has_library: false, seen: Arc::default() })
    }

    /// The same with less memory.
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The same with a library that multiplies, on the host.
    pub fn with_library(self) -> Self {
        Self { has_library: true, ..self }
    }
}

/// Compiles the kernels and loads them.
fn build() -> Option<Launch> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        assert!(
            std::env::var_os("PARSIMONY_REQUIRE_DATA").is_none(),
            "no C++ compiler `{compiler}`: scripts/setup.sh installs one; CXX names another"
        );
        eprintln!("skipped: no C++ compiler `{compiler}` to run kernels on the CPU; scripts/setup.sh installs one");
        return None;
    }
    let library = compiled(&compiler);
    let name = CString::new(library.to_str().expect("a path in UTF-8")).unwrap();
    // SAFETY: the library was just made from the kernels and runs nothing when it is loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{} cannot be loaded", library.display());
    // SAFETY: the handle is that of the library.
    let symbol = unsafe { libc::dlsym(handle, c"emulated_launch".as_ptr()) };
    assert!(!symbol.is_null(), "emulated_launch is not in {}", library.display());
    // SAFETY: the function has this type, see `translation`.
    Some(unsafe { std::mem::transmute::<*mut c_void, Launch>(symbol) })
}

/// The header, the kernels and a table of them as one C++ file.
fn translation() -> String {
    let mut text = format!("#include \"emulation.h\"\n{}\n#line 1 \"table of kernels\"\n", source::program());
    text += "static const emulation::Entry entries[] = {\n";
    for kernel in source::kernels() {
        let _ = writeln!(text, "  {{\"{kernel}\", emulation::Call<&{kernel}>::call}},");
    }
    text + "};\nextern \"C\" int emulated_launch(const char *name, unsigned x, unsigned y, unsigned threads, unsigned turns, void **values) {\n  \
            return emulation::launch(entries, sizeof entries / sizeof *entries, name, x, y, threads, turns, values);\n}\n"
}

/// The compiled library, made anew for every run of the tests.
fn compiled(compiler: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernels-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("kernels.cpp"), folder.join("kernels.so"));
    std::fs::write(&source, translation()).unwrap();
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let options =
        "-std=c++17 -O2 -U_FORTIFY_SOURCE -ffp-contract=off -shared -fPIC -Wall -Wextra -Werror -Wno-unused-function";
    let output = Command::new(compiler)
        .args(options.split(' '))
        .arg("-I")
        .arg(&headers)
        .arg(&source)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(output.status.success(), "the kernels are no C++:\n{}", String::from_utf8_lossy(&output.stderr));
    library
}

impl Seen {
    /// The piece in which bytes lie, and where in it they begin.
    fn place(&mut self, address: u64, bytes: usize) -> Result<(&mut Piece, usize)> {
        let outside = || Error::Device(format!("{bytes} bytes at {address:#x} lie outside of what was taken"));
        let (&start, piece) = self.pieces.range_mut(..=address).next_back().ok_or_else(outside)?;
        let offset = (address - start) as usize;
        if offset + bytes > piece.bytes { Err(outside()) } else { Ok((piece, offset)) }
    }

    fn look_at_guards(&mut self, after: &str) {
        if self.pieces.values().any(|piece| !piece.is_whole()) {
            self.violations.push(format!("{after} wrote beyond its memory"));
        }
    }
}

impl Machine for Emulation {
    fn name(&self) -> String {
        format!("emulation, threads in order {}", self.turns)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut seen = self.seen.lock().unwrap();
        let taken: usize = seen.pieces.values().map(|piece| piece.bytes).sum();
        if taken + bytes > self.limit {
            return Err(Error::Device(format!("the emulation's memory is full: {bytes} bytes more were asked for")));
        }
        let piece = Piece::new(bytes);
        let address = piece.address();
        seen.pieces.insert(address, piece);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut seen = self.seen.lock().unwrap();
        if seen.pieces.remove(&address).is_none() {
            seen.violations.push(format!("{address:#x} was given back but not taken"));
        }
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let (piece, offset) = seen.place(to, bytes.len())?;
        // SAFETY: the bytes lie within the piece, whose words are plain memory.
        unsafe {
            let to = piece.words.as_mut_ptr().cast::<u8>().add(GUARD + offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        seen.waits += 1;
        let (piece, offset) = seen.place(from, bytes.len())?;
        // SAFETY: as above.
        unsafe {
            let from = piece.words.as_ptr().cast::<u8>().add(GUARD + offset);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn launch(&self, kernel: &'static str, grid: [u32; 2], arguments: &[Argument]) -> Result<()> {
        // The fibers of the emulation are one for all machines.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap();
        let name = CString::new(kernel).unwrap();
        let mut places: Vec<*mut c_void> = arguments.iter().map(Argument::place).collect();
        // SAFETY: arguments are those of the kernel, as on a GPU; what they point to lives through the call.
        let answer =
            unsafe { (self.launch)(name.as_ptr(), grid[0], grid[1], THREADS, self.turns, places.as_mut_ptr()) };
        let mut seen = self.seen.lock().unwrap();
        seen.kernels.insert(kernel);
        seen.launches += 1;
        seen.look_at_guards(kernel);
        if answer == 0 { Ok(()) } else { Err(Error::Device(format!("there is no kernel {kernel}"))) }
    }

    fn multiplies_half(&self) -> bool {
        self.has_library
    }

    fn product(&self, out: DeviceMatrix, keep: bool, a: Factor, b: Factor, factors: Factors) -> Result<bool> {
        if !self.has_library {
            return Ok(false);
        }
        let element = |of: Factor, row: i64, column: i64| {
            let (row, column) = if of.transposed { (column, row) } else { (row, column) };
            let place = (row * of.matrix.stride + column) as usize;
            // SAFETY: the element lies within its matrix, which is memory that was taken.
            unsafe {
                match factors {
                    Factors::Single => *(of.matrix.values as *const f32).add(place),
                    Factors::Half => f32::from_bits(u32::from(*(of.matrix.values as *const u16).add(place)) << 16),
                }
            }
        };
        let inner = if a.transposed { a.matrix.rows } else { a.matrix.columns };
        for row in 0..out.rows {
            for column in 0..out.columns {
                let sum: f32 = (0..inner).map(|k| element(a, row, k) * element(b, k, column)).sum();
                // SAFETY: as above.
                let to = unsafe { &mut *(out.values as *mut f32).add((row * out.stride + column) as usize) };
                *to = if keep { *to + sum } else { sum };
            }
        }
        self.seen.lock().unwrap().look_at_guards("a library's product");
        Ok(true)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
