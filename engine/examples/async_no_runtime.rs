//! A receipt is a future that needs no runtime: any executor will do, such as the one of a few
//! lines below.
//!
//! `cargo run -p ringlog --example async_no_runtime [DIRECTORY]`

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use ringlog::{Format, Log, Offset, Options, ReceiptError, Stream};

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives one future to its end on the calling thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The body of an `async` application.
async fn greet(greetings: &Stream) -> Result<(Offset, Offset), Box<dyn Error>> {
    let hello = greetings.append(b"hello")?;
    let again = greetings.append(b"hello again")?;
    // Both are on their way by now; awaiting one does not delay the other.
    let (hello, again) = (hello.await?, again.await?);
    Ok((hello.offset, again.offset))
}

/// Runs the example on the log in `dir`, which is created when it is missing.
pub fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    let log = Log::open(dir, Options { format, ..Options::default() })?;
    let greetings = log.stream("greetings")?;

    let (first, second) = block_on(greet(&greetings))?;
    assert_eq!(second, Offset(first.0 + 1));

    // Giving up a future never takes its record back.
    let third = greetings.append(b"nobody waits for this one")?;
    drop(third);
    log.flush()?;
    let payloads: Vec<Vec<u8>> = greetings
        .read(first..)?
        .map(|record| record.map(|record| record.payload().to_vec()))
        .collect::<Result<_, _>>()?;
    assert_eq!(payloads, [&b"hello"[..], b"hello again", b"nobody waits for this one"]);

    // What was appended before the log was closed still gets its acknowledgement.
    let last = greetings.append(b"goodbye")?;
    log.close()?;
    let last: Result<_, ReceiptError> = block_on(last);
    assert_eq!(last?.offset, Offset(first.0 + 3));
    println!("offsets {first} to {} without a runtime", first.0 + 3);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(dir.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}
