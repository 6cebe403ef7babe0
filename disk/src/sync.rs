//! The atomics and locks of what is shared between threads: those of the standard library, and under
//! `--cfg loom` those of loom, which runs a test under every schedule that the memory model allows.
//!
//! Only code whose schedules are explored takes them from here. loom has no total order of `SeqCst`
//! operations, only fences. [`ordered`] gives that order back to those who rely on it, by a fence
//! before each load and behind each store; whoever brings fences of its own takes the plain ones, so
//! that a fence that is missing is found.

#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard, OnceLock, RwLock, atomic};

#[cfg(not(loom))]
pub use std::sync::atomic as ordered;

#[cfg(loom)]
pub use loom::sync::{Mutex, MutexGuard, RwLock, atomic};

#[cfg(loom)]
pub use once::OnceLock;

/// The lock-free queue; its own schedules are not explored, only those around it.
#[cfg(not(loom))]
pub use crossbeam_queue::ArrayQueue;

#[cfg(loom)]
pub use queue::ArrayQueue;

/// A queue of the same contract, with a lock.
#[cfg(loom)]
mod queue {
    use std::collections::VecDeque;
    use std::sync::PoisonError;

    use loom::sync::{Mutex, MutexGuard};

    /// See the module's text.
    #[derive(Debug)]
    pub struct ArrayQueue<T>(Mutex<VecDeque<T>>, usize);

    impl<T> ArrayQueue<T> {
        /// Empty, for so many.
        pub fn new(capacity: usize) -> Self {
            Self(Mutex::new(VecDeque::new()), capacity)
        }

        fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Adds one behind the others; gives it back when there is no room.
        ///
        /// # Errors
        /// The value.
        pub fn push(&self, value: T) -> Result<(), T> {
            let mut queue = self.lock();
            if queue.len() == self.1 {
                return Err(value);
            }
            queue.push_back(value);
            Ok(())
        }

        /// Takes the first.
        pub fn pop(&self) -> Option<T> {
            self.lock().pop_front()
        }

        /// How many there are.
        pub fn len(&self) -> usize {
            self.lock().len()
        }

        /// Whether there is none.
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }
}

/// A cell that is set once: what is in it is visible to whoever finds it set, and to nobody else.
#[cfg(loom)]
mod once {
    use loom::sync::atomic::{AtomicBool, Ordering};

    /// See the module's text.
    #[derive(Debug)]
    pub struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        /// An empty cell.
        pub fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        /// What is in it.
        pub fn get(&self) -> Option<&T> {
            self.is_set.load(Ordering::Acquire).then(|| self.value.get()).flatten()
        }

        /// Puts something in it; gives it back if there is something already.
        ///
        /// # Errors
        /// The value.
        pub fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }

        /// What is in it, or what is put in it.
        pub fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
            let value = self.value.get_or_init(value);
            self.is_set.store(true, Ordering::Release);
            value
        }
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }
}

/// Atomics whose `SeqCst` operations have one total order.
#[cfg(loom)]
pub mod ordered {
    pub use loom::sync::atomic::{Ordering, fence};

    fn before(order: Ordering) {
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
    }

    use before as after;

    macro_rules! ordered {
        ($name:ident, $value:ty $(, $arithmetic:ident)*) => {
            /// As the one of the standard library.
            #[derive(Debug, Default)]
            pub struct $name(pub(crate) loom::sync::atomic::$name);

            impl $name {
                /// As of the standard library.
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                /// As of the standard library.
                pub fn load(&self, order: Ordering) -> $value {
                    before(order);
                    self.0.load(order)
                }

                /// As of the standard library.
                pub fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, order);
                    after(order);
                }

                /// As of the standard library.
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    before(order);
                    let old = self.0.swap(value, order);
                    after(order);
                    old
                }

                /// As of the standard library.
                ///
                /// # Errors
                /// What is there instead.
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    before(success);
                    let old = self.0.compare_exchange(current, new, success, failure);
                    after(success);
                    old
                }

                $(
                    /// As of the standard library.
                    pub fn $arithmetic(&self, value: $value, order: Ordering) -> $value {
                        before(order);
                        let old = self.0.$arithmetic(value, order);
                        after(order);
                        old
                    }
                )*
            }
        };
    }

    ordered!(AtomicBool, bool);
    ordered!(AtomicU32, u32, fetch_add, fetch_sub, fetch_or, fetch_and);
    ordered!(AtomicU64, u64, fetch_add, fetch_sub, fetch_or, fetch_and);
    ordered!(AtomicUsize, usize, fetch_add, fetch_sub);
}
