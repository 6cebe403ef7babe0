//! The bounded lock-free queue from producers to the writer. The one place that knows which queue
//! it is.

use ringlog_disk::sync::ArrayQueue;

use crate::chunk::Chunk;

/// Carries whole chunks, in order, from any thread to the writer.
pub struct ChunkQueue(ArrayQueue<Box<Chunk>>);

impl ChunkQueue {
    /// A queue for as many chunks as there are blocks for: so a push of a chunk cannot fail, and
    /// what bounds the producers is the memory for their blocks.
    pub fn for_blocks(blocks: usize) -> Self {
        Self(ArrayQueue::new(blocks.max(1)))
    }

    /// Adds a chunk; gives it back when the queue is full.
    pub fn push(&self, chunk: Box<Chunk>) -> Result<(), Box<Chunk>> {
        self.0.push(chunk)
    }

    /// Takes the oldest chunk.
    pub fn pop(&self) -> Option<Box<Chunk>> {
        self.0.pop()
    }

    /// How many chunks wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
