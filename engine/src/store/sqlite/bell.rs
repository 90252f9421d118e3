//! Wake-ups across processes: a small file beside the database that everybody watches.
//!
//! Watching the write-ahead log itself would also work, but a transaction writes it page by page, and so do renewals,
//! which concern nobody. The bell is written once for each step that somebody waits for, after its commit. It holds
//! eight bytes for each topic of each line, a new value at each ring; whoever sees another value than before looks.
//! It is never synced and may be deleted at any time: a lost hint costs [`crate::wake::FALLBACK`].

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::wake::{Topic, Wakes};

/// The last value seen, or rung, for each topic of one line.
type Heard = Arc<[AtomicU64; Topic::ALL.len()]>;

/// One that could not be hung, for want of space or of watches, is tried again so often.
const HANG_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Bell {
    path: PathBuf,
    wakes: Wakes,
    heard: Heard,
    offset: u64,
    /// The next value. It starts anywhere, so that no two processes ring the same.
    next: u64,
    file: Option<File>,
    /// Ends with this. `None` as long as it can't be had.
    watcher: Option<RecommendedWatcher>,
    tried: Instant,
}

impl Bell {
    /// Hangs the bell of line number `line` beside the database, and listens to it.
    pub(super) fn hang(database: &Path, line: i64, wakes: Wakes) -> Self {
        let mut bell = Self {
            path: path_beside(database),
            wakes,
            heard: Heard::default(),
            offset: line.unsigned_abs() * (Topic::ALL.len() * 8) as u64,
            next: RandomState::new().hash_one(std::process::id()),
            file: None,
            watcher: None,
            tried: Instant::now(),
        };
        if let Err(error) = bell.listen() {
            tracing::warn!(
                path = %bell.path.display(), %error,
                "can't watch for wake-ups of other processes; looking every 100 ms until it can"
            );
        }
        bell
    }

    /// Hangs it again if it could not be hung, now and then.
    pub(super) fn tend(&mut self) {
        if self.watcher.is_none() && self.tried.elapsed() >= HANG_EVERY && self.listen().is_ok() {
            tracing::info!(path = %self.path.display(), "hears the wake-ups of other processes now");
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        self.tried = Instant::now();
        self.file = Some(open(&self.path)?);
        let watcher = watch(&self.path, self.offset, &self.heard, &self.wakes).map_err(io::Error::other)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Wakes everybody who listens for one of `topics`, in this process and in others. They are neighbours in
    /// [`Topic::ALL`], so that one write rings for all of them.
    pub(super) fn ring(&mut self, topics: &[Topic]) {
        let Some(first) = topics.first() else { return };
        self.next = self.next.wrapping_add(1);
        let value = self.next;
        // Remembered first, so that this process does not wake itself twice. A value of another process that this
        // one overwrites unseen is no loss: its step is committed, and we wake ourselves right after.
        for topic in topics {
            self.heard[*topic as usize].store(value, Ordering::SeqCst);
        }
        let at = self.offset + *first as u64 * 8;
        if let Some(file) = &mut self.file {
            let written = file
                .seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(&value.to_le_bytes().repeat(topics.len())));
            if let Err(error) = written {
                tracing::debug!(%error, "no wake-up for other processes");
            }
        }
        topics.iter().for_each(|topic| self.wakes.wake(*topic));
    }
}

fn path_beside(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push("-wake");
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn watch(path: &Path, offset: u64, heard: &Heard, wakes: &Wakes) -> notify::Result<RecommendedWatcher> {
    let mut file = open(path).map_err(notify::Error::io)?;
    for (topic, value) in read(&mut file, offset) {
        heard[topic as usize].store(value, Ordering::SeqCst);
    }
    let (heard, wakes) = (Arc::clone(heard), wakes.clone());
    let look = move |event: notify::Result<Event>| match event {
        Ok(event) if event.kind.is_modify() => {
            for (topic, value) in read(&mut file, offset) {
                if heard[topic as usize].swap(value, Ordering::SeqCst) != value {
                    wakes.wake(topic);
                }
            }
        }
        Ok(_) => {}
        // Events were lost: one of them may have been for us.
        Err(_) => wakes.wake_all(),
    };
    let mut watcher = notify::recommended_watcher(look)?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The values as they are. Those of a line that never rang are missing.
fn read(file: &mut File, offset: u64) -> impl Iterator<Item = (Topic, u64)> {
    let mut bytes = Vec::with_capacity(Topic::ALL.len() * 8);
    let read = file
        .seek(SeekFrom::Start(offset))
        .and_then(|_| file.take((Topic::ALL.len() * 8) as u64).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    let values: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|value| u64::from_le_bytes(*value))
        .collect();
    Topic::ALL.into_iter().zip(values)
}
