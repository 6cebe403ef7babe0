//! How far CPUs are from one another: a cache line there and back.
//!
//! Records go from the thread that appends to the thread that writes; on virtual machines the way
//! changes from minute to minute, and figures with it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So often there and back in a go; the fastest of the goes counts, which nothing disturbed.
const ROUND_TRIPS: u32 = 500;
/// A pair is measured for this long at most.
const AT_MOST: Duration = Duration::from_millis(20);
/// Pairs of the first CPU with so many others, at most.
const PAIRS_MAX: usize = 8;

/// A cache line.
#[repr(align(128))]
struct Line(AtomicU32);

/// Round trip in ns of the nearest and of the farthest pair; `None` on one CPU, and where threads
/// cannot be pinned.
pub(super) fn between_cpus() -> Option<[f64; 2]> {
    let cpus = core_affinity::get_core_ids()?;
    let (first, others) = cpus.split_first()?;
    let step = others.len().div_ceil(PAIRS_MAX).max(1);
    let trips = others.iter().step_by(step).filter_map(|other| round_trip_ns(*first, *other));
    let all: Vec<f64> = trips.collect();
    let near = all.iter().copied().min_by(f64::total_cmp)?;
    let far = all.iter().copied().max_by(f64::total_cmp)?;
    Some([near, far])
}

/// The answering side stops when it sees this.
const OVER: u32 = u32::MAX;

fn round_trip_ns(one: core_affinity::CoreId, other: core_affinity::CoreId) -> Option<f64> {
    let (ball, back) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(other);
            let mut seen = 0;
            while seen != OVER {
                let now = ball.0.load(Ordering::Acquire);
                if now == seen {
                    std::hint::spin_loop();
                } else {
                    seen = now;
                    back.0.store(now, Ordering::Release);
                }
            }
        });
        // A thread of its own, because a pinned thread stays pinned.
        let asking = scope.spawn(|| {
            let pinned = core_affinity::set_for_current(one);
            let (begun, mut fastest, mut number) = (Instant::now(), None, 0);
            'goes: while pinned && begun.elapsed() < AT_MOST {
                let at = Instant::now();
                for _ in 0..ROUND_TRIPS {
                    number += 1;
                    ball.0.store(number, Ordering::Release);
                    let mut turns = 0_u32;
                    while back.0.load(Ordering::Acquire) != number {
                        turns = turns.wrapping_add(1);
                        // The other side may not be running at all.
                        if turns.is_multiple_of(1024) && begun.elapsed() > AT_MOST {
                            break 'goes;
                        }
                        std::hint::spin_loop();
                    }
                }
                let ns = at.elapsed().as_nanos() as f64 / f64::from(ROUND_TRIPS);
                fastest = Some(fastest.map_or(ns, |best: f64| best.min(ns)));
            }
            ball.0.store(OVER, Ordering::Release);
            fastest
        });
        asking.join().ok().flatten()
    })
}
