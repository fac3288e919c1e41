//! The functions of `crates/fuzz-targets` as programs of libFuzzer: each of `fuzz_targets/` is one of them.

pub use cap::Cap;
pub use libfuzzer_sys::fuzz_target;
pub use modelyard_fuzz_targets::run;

/// The most memory that a target may have at once, in bytes. No decoder needs as much for inputs of some kilobytes; what
/// asks for more is ended, and so found, however short the moment. (libFuzzer looks once a second, and at all that a
/// process ever had.)
pub const MOST_MEMORY: usize = 512 << 20;

/// The whole of a fuzz target, by its name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Cap<std::alloc::System> = $crate::Cap::new(std::alloc::System, $crate::MOST_MEMORY);

        $crate::fuzz_target!(|bytes: &[u8]| $crate::run($name, bytes));
    };
}
