//! Processors that have nothing to do, lent to whoever digests a long layer.
//!
//! Inflating a layer and digesting its tar take one thread together; when fewer layers are read than there are
//! processors, the digest goes on in a second thread. It moves there and back while the layer is read, so a
//! layer that ends up alone is sped up too, and a busy machine pays nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::image::Hasher;

/// Bytes between two looks at how busy the processors are.
const LOOK_EVERY: u64 = 4 << 20;
/// Pieces on their way to the second thread; each has the size of a read.
const PIECES: usize = 8;

/// A digest to be continued by another thread.
pub(crate) struct Task {
    hasher: Hasher,
    pieces: Receiver<Vec<u8>>,
    used: Sender<Vec<u8>>,
    result: Sender<Hasher>,
}

/// Where such threads wait, and how busy the others are.
pub(crate) struct Spare {
    /// `None` once no more tasks come.
    tasks: Mutex<Option<Sender<Task>>>,
    n_reading: AtomicUsize,
    n_processors: usize,
}

impl Spare {
    /// A place to wait at, for [`serve`], and its other end. A task is handed over only to a thread that waits.
    pub(crate) fn new(n_processors: usize) -> (Self, Receiver<Task>) {
        let (tasks, waiting) = bounded(0);
        let tasks = Mutex::new(Some(tasks));
        (
            Spare {
                tasks,
                n_reading: AtomicUsize::new(0),
                n_processors,
            },
            waiting,
        )
    }

    /// Lets the waiting threads end.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a layer that is being read until the value is dropped.
    pub(crate) fn reading(&self) -> Reading<'_> {
        self.n_reading.fetch_add(1, Ordering::Relaxed);
        Reading(self)
    }

    fn is_free(&self) -> bool {
        self.n_reading.load(Ordering::Relaxed) < self.n_processors
    }
}

/// A layer that is being read.
pub(crate) struct Reading<'a>(&'a Spare);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.n_reading.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Continues digests until [`Spare::close`].
pub(crate) fn serve(tasks: &Receiver<Task>) {
    for mut task in tasks {
        for piece in &task.pieces {
            task.hasher.update(&piece);
            // Nobody needs it back when there are enough.
            let _ = task.used.try_send(piece);
        }
        let _ = task.result.send(task.hasher);
    }
}

/// A running digest, here or in a spare thread.
pub(super) struct Digester<'a> {
    spare: &'a Spare,
    place: Place,
    since_look: u64,
}

enum Place {
    Here(Hasher),
    There {
        pieces: Sender<Vec<u8>>,
        used: Receiver<Vec<u8>>,
        result: Receiver<Hasher>,
    },
    /// Between two places, and for ever when the other thread ended.
    Lost,
}

impl<'a> Digester<'a> {
    pub(super) fn new(spare: &'a Spare) -> Self {
        Digester {
            spare,
            place: Place::Here(Hasher::sha256()),
            since_look: 0,
        }
    }

    /// Errors (`Retry`) when the other thread ended.
    pub(super) fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.since_look += bytes.len() as u64;
        if self.since_look >= LOOK_EVERY {
            self.since_look = 0;
            self.move_if_better()?;
        }
        match &mut self.place {
            Place::Here(hasher) => hasher.update(bytes),
            Place::There { pieces, used, .. } => {
                let mut piece = used.try_recv().unwrap_or_default();
                piece.clear();
                piece.extend_from_slice(bytes);
                pieces.send(piece).map_err(|_| lost())?;
            }
            Place::Lost => return Err(lost()),
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Hasher> {
        self.come_back()
    }

    fn move_if_better(&mut self) -> Result<()> {
        let is_free = self.spare.is_free();
        self.place = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(hasher) if is_free => self.lend(hasher),
            there @ Place::There { .. } if !is_free => {
                self.place = there;
                Place::Here(self.come_back()?)
            }
            stay => stay,
        };
        Ok(())
    }

    /// Gives the digest to a thread that waits, if one does.
    fn lend(&self, hasher: Hasher) -> Place {
        let ((pieces, taken), (used_sender, used), (result_sender, result)) =
            (bounded(PIECES), bounded(2 * PIECES), bounded(1));
        let task = Task {
            hasher,
            pieces: taken,
            used: used_sender,
            result: result_sender,
        };
        let refused = match self.spare.lock().as_ref() {
            Some(tasks) => tasks.try_send(task).map_err(|refused| refused.into_inner()),
            None => Err(task),
        };
        match refused {
            Ok(()) => Place::There {
                pieces,
                used,
                result,
            },
            Err(task) => Place::Here(task.hasher),
        }
    }

    fn come_back(&mut self) -> Result<Hasher> {
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(hasher) => Ok(hasher),
            Place::There { pieces, result, .. } => {
                drop(pieces);
                result.recv().map_err(|_| lost())
            }
            Place::Lost => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::retry("the thread that digests the layer ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    /// Digests 64 MiB in odd pieces while `n_reading` layers are read.
    fn digest(n_processors: usize, n_threads: usize, n_reading: usize) -> Digest {
        let (spare, tasks) = Spare::new(n_processors);
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                let tasks = tasks.clone();
                scope.spawn(move || serve(&tasks));
            }
            let reading: Vec<Reading<'_>> = (0..n_reading).map(|_| spare.reading()).collect();
            let mut digester = Digester::new(&spare);
            let piece = [7; 100_003];
            for n in 0..650 {
                // Busy in the middle, so that the digest comes back once.
                let _busy = (200..400).contains(&n).then(|| spare.reading());
                digester.update(&piece).unwrap();
            }
            let digest = digester.finish().unwrap().finish();
            drop(reading);
            spare.close();
            digest
        })
    }

    #[test]
    fn the_digest_is_the_same_wherever_it_is_made() {
        let here = digest(1, 0, 1);
        assert_eq!(digest(2, 1, 1), here);
        assert_eq!(digest(4, 2, 1), here);
        assert_eq!(digest(4, 0, 1), here);
    }
}
