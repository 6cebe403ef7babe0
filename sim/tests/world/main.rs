//! The simulated world: what it keeps and loses, what it does wrong on demand, and whether it and
//! the oracle find the bugs of a log.

mod common;
mod durability;
mod faults;
mod toy_log;
