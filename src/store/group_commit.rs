//! Group commit: whatever queued up while the last transaction ran goes into the next one.
//!
//! Each shard of sessions has one queue and one writer task with one batch in flight. It does not retry: what the
//! store answers goes to whoever submitted. Invariants: the commits of a session are stored in the order in which they
//! were submitted, and a batch has at most one of each session; every commit that was taken into the queue is answered,
//! a store that panics notwithstanding; a full queue refuses before anything is taken.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::{CommitError, SessionCommit, Store};
use crate::protocol::{NodeId, SessionId};

/// How much waits and how much goes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCommitOptions {
    /// Writers, each for its part of the sessions: 1 for a store that writes one transaction at a time.
    pub shards: usize,
    /// Rows that wait in one shard before commits are refused.
    pub queue_rows: usize,
    /// Bytes that wait in one shard before commits are refused.
    pub queue_bytes: usize,
    /// Rows after which a batch is full.
    pub batch_rows: usize,
    /// Bytes after which a batch is full.
    pub batch_bytes: usize,
}

impl Default for GroupCommitOptions {
    /// One shard, 50,000 rows or 64 MiB waiting, batches of up to 2,000 rows or 4 MiB.
    fn default() -> Self {
        Self { shards: 1, queue_rows: 50_000, queue_bytes: 64 << 20, batch_rows: 2_000, batch_bytes: 4 << 20 }
    }
}

/// What became of a batch, for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// Which shard.
    pub shard: usize,
    /// Sessions in it.
    pub sessions: usize,
    /// Rows in it.
    pub rows: usize,
    /// Bytes in it, roughly.
    pub bytes: usize,
    /// Sessions whose commit was not taken.
    pub failed: usize,
    /// How long the store took.
    pub took: Duration,
    /// Rows that had queued up meanwhile.
    pub waiting_rows: usize,
}

/// Told of every batch, on the writer's task: it must not block.
pub type BatchObserver = Arc<dyn Fn(BatchReport) + Send + Sync>;

/// The way of all commits into the store; clones share the queues.
#[derive(Clone)]
pub struct GroupCommit(Arc<Shards>);

impl fmt::Debug for GroupCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("shards", &self.0.shards.len()).finish_non_exhaustive()
    }
}

/// What a commit's submitter waits on. The sender is never dropped without an answer while its writer runs.
pub type CommitOutcome = oneshot::Receiver<Result<(), CommitError>>;

struct Shards {
    shards: Vec<Arc<Shard>>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

struct Shard {
    options: GroupCommitOptions,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    rows: usize,
    bytes: usize,
    closing: bool,
}

struct Waiting {
    commit: SessionCommit,
    size: Size,
    answer: oneshot::Sender<Result<(), CommitError>>,
}

#[derive(Clone, Copy, Default)]
struct Size {
    rows: usize,
    bytes: usize,
}

impl GroupCommit {
    /// Starts the writers on the current runtime. `observer` is told of every batch.
    pub fn start(
        store: Arc<dyn Store>,
        node_id: NodeId,
        options: GroupCommitOptions,
        observer: Option<BatchObserver>,
    ) -> Self {
        let shard = || Shard { options: options.clone(), queue: Mutex::default(), wake: Notify::new() };
        let shards: Vec<_> = (0..options.shards.max(1)).map(|_| Arc::new(shard())).collect();
        let writers = shards.iter().enumerate().map(|(number, shard)| {
            let writer = Writer {
                number,
                shard: Arc::clone(shard),
                store: Arc::clone(&store),
                node_id,
                observer: observer.clone(),
            };
            tokio::spawn(writer.run())
        });
        let writers = Mutex::new(writers.collect());
        Self(Arc::new(Shards { shards, writers }))
    }

    /// Queues a commit; after [`GroupCommit::shutdown`] began its outcome is `Refused`.
    ///
    /// # Errors
    /// Gives the commit back where too much waits; nothing was taken then.
    pub fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>> {
        let shard = self.shard_of(commit.session_id);
        let size = Size::of(&commit);
        let (answer, outcome) = oneshot::channel();
        let mut queue = shard.queue();
        if queue.closing {
            // Received below, by whoever holds the outcome.
            drop(answer.send(Err(CommitError::Refused("the node is stopping".to_owned()))));
            return Ok(outcome);
        }
        // A commit larger than the whole queue still goes when nothing else waits.
        let full = queue.rows + size.rows > shard.options.queue_rows
            || queue.bytes.saturating_add(size.bytes) > shard.options.queue_bytes;
        if full && !queue.waiting.is_empty() {
            return Err(Box::new(commit));
        }
        queue.rows += size.rows;
        queue.bytes += size.bytes;
        queue.waiting.push_back(Waiting { commit, size, answer });
        drop(queue);
        shard.wake.notify_one();
        Ok(outcome)
    }

    /// Whether so much waits for this session's shard that nothing more should be begun.
    pub fn is_full(&self, session_id: SessionId) -> bool {
        let shard = self.shard_of(session_id);
        let queue = shard.queue();
        queue.rows >= shard.options.queue_rows / 4 * 3 || queue.bytes >= shard.options.queue_bytes / 4 * 3
    }

    /// Rows that wait, in all shards.
    pub fn waiting_rows(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.queue().rows).sum()
    }

    /// Takes no further commits, and returns when all that were taken have been answered.
    pub async fn shutdown(&self) {
        self.0.close();
        let writers = std::mem::take(&mut *self.0.writers.lock().unwrap_or_else(PoisonError::into_inner));
        for writer in writers {
            if let Err(error) = writer.await {
                tracing::error!(%error, "a writer of the group commit died");
            }
        }
    }

    fn shard_of(&self, session_id: SessionId) -> &Shard {
        // The last bytes of a UUIDv7 are random.
        let [.., a, b] = *session_id.as_bytes();
        &self.0.shards[usize::from(u16::from_be_bytes([a, b])) % self.0.shards.len()]
    }
}

impl Shards {
    fn close(&self) {
        for shard in &self.shards {
            shard.queue().closing = true;
            shard.wake.notify_one();
        }
    }
}

impl Drop for Shards {
    /// Without anybody left to submit, the writers finish what is queued and end.
    fn drop(&mut self) {
        self.close();
    }
}

impl Shard {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes next: the oldest, at most one of each session. `None` when nothing waits and nothing will come.
    async fn next_batch(&self) -> Option<Vec<Waiting>> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.waiting.is_empty() {
                    return Some(queue.take(&self.options));
                }
                if queue.closing {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

impl Queue {
    fn take(&mut self, options: &GroupCommitOptions) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut sessions = HashSet::new();
        let mut later = VecDeque::new();
        let mut size = Size::default();
        while let Some(next) = self.waiting.pop_front() {
            let fits =
                size.rows + next.size.rows <= options.batch_rows && size.bytes + next.size.bytes <= options.batch_bytes;
            if !(fits || batch.is_empty()) {
                later.push_back(next);
                break;
            }
            // A second commit of a session, and all that follow it, wait for the next batch.
            if !sessions.insert(next.commit.session_id) {
                later.push_back(next);
                continue;
            }
            size = Size { rows: size.rows + next.size.rows, bytes: size.bytes + next.size.bytes };
            batch.push(next);
        }
        later.append(&mut self.waiting);
        self.waiting = later;
        self.rows -= size.rows;
        self.bytes -= size.bytes;
        batch
    }
}

impl Size {
    /// What a row weighs beside its frame, and a session's record, roughly.
    const ROW: usize = 128;
    const HEAD: usize = 1024;

    fn of(commit: &SessionCommit) -> Self {
        let frames: usize =
            commit.writes.iter().filter_map(|write| write.frame.as_ref()).map(|frame| frame.len()).sum();
        let head = if commit.head.is_some() { Self::HEAD } else { 0 };
        // One for the session's own row, and one for its record.
        let rows = 1 + usize::from(commit.head.is_some()) + commit.writes.len();
        Self { rows, bytes: frames + head + rows * Self::ROW }
    }
}

/// The task of one shard.
struct Writer {
    number: usize,
    shard: Arc<Shard>,
    store: Arc<dyn Store>,
    node_id: NodeId,
    observer: Option<BatchObserver>,
}

impl Writer {
    async fn run(self) {
        while let Some(batch) = self.shard.next_batch().await {
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Waiting>) {
        let rows = batch.iter().map(|waiting| waiting.size.rows).sum();
        let bytes = batch.iter().map(|waiting| waiting.size.bytes).sum();
        let (commits, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.commit, waiting.answer)).unzip();
        let started = Instant::now();
        let outcomes = self.commit(commits).await;
        let took = started.elapsed();
        let (mut failed, mut outcomes) = (0, outcomes.into_iter());
        let sessions = answers.len();
        for answer in answers {
            let missing = || Err(CommitError::Unknown("the store gave no answer".to_owned()));
            let outcome = outcomes.next().unwrap_or_else(missing);
            failed += usize::from(outcome.is_err());
            // Nobody waits any more where the session's actor stopped meanwhile.
            let _ = answer.send(outcome);
        }
        if let Some(observer) = &self.observer {
            let waiting_rows = self.shard.queue().rows;
            observer(BatchReport { shard: self.number, sessions, rows, bytes, failed, took, waiting_rows });
        }
    }

    /// In a task of its own, so that a panic in the store ends that task and not this one.
    async fn commit(&self, commits: Vec<SessionCommit>) -> Vec<Result<(), CommitError>> {
        let (store, node_id) = (Arc::clone(&self.store), self.node_id);
        let sessions = commits.len();
        let commit = tokio::spawn(async move { store.commit(node_id, &commits).await });
        commit.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the store failed in the middle of a commit");
            vec![Err(CommitError::Unknown("the store failed".to_owned())); sessions]
        })
    }
}

#[cfg(test)]
mod tests;
