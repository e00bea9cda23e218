//! The `weir` binary: everything is in the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    lb_userspace::cli::main()
}
