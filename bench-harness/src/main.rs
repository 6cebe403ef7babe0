//! `ringlog-bench`: which durability a disk can afford, measured beside the disk's own floor.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringlog_bench::main()
}
