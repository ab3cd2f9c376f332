//! Asks the agents of pods what they do, each in its turn, and keeps what each said last for anybody to look at.
//!
//! One task asks for all of them: those whose time has come, nearest first, within a budget. What a pod said is never waited for,
//! but by whoever is about to take pods away: a [`LastWord`] asks just these once more.

mod book;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use self::book::Book;
pub use self::book::{Heard, Look, Pace};
use crate::{
    agents::{self, Address, Ask, Said, Silence},
    clock::Clock,
    cluster::view::PodView,
};

/// At most so many are asked in each [`WINDOW`]: a thousand pods within ten seconds, which is how often they ask Buildkite.
const ASKED_IN_WINDOW: usize = 20;
/// See [`ASKED_IN_WINDOW`].
const WINDOW: Duration = Duration::from_millis(200);

/// Answers that are waited for at the same time: all that can be begun within the deadline of one that never comes.
const WAITING_MAX: usize = 256;

/// For a last word: an agent answers within milliseconds, and each that passes gives another one time to be given a job.
const LAST_WORD_MAX: Duration = Duration::from_millis(500);

/// Without anything due the task looks at what it has no more often than this.
const IDLE: Duration = Duration::from_mins(1);

/// The pods that are asked. Dropping it ends the asking.
pub struct ProbeSet {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for ProbeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeSet").finish_non_exhaustive()
    }
}

struct Shared {
    way: Arc<dyn Ask>,
    clock: Clock,
    wake: Arc<Notify>,
    changed: Notify,
    book: Mutex<Book>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProbeSet {
    /// Begins, with nobody to ask. What is news wakes `wake`.
    pub fn begin(way: Arc<dyn Ask>, clock: Clock, wake: Arc<Notify>) -> Self {
        let shared = Arc::new(Shared { way, clock, wake, changed: Notify::new(), book: Mutex::default() });
        let task = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&shared))));
        Self { shared, _task: task }
    }

    /// Pods to ask from now on, beside all others that are wanted in this round. What is new is asked at once; what stays keeps
    /// what it said. `address` says where a pod is asked; one that has no address is not.
    pub fn want<'a>(
        &self,
        pods: impl Iterator<Item = (&'a Arc<PodView>, Pace)>,
        address: impl Fn(&PodView) -> Option<Address>,
    ) {
        let now = self.shared.clock.mono();
        let mut book = self.shared.book();
        let mut is_sooner = false;
        for (pod, pace) in pods {
            is_sooner |= book.want(pod, pace, now, || address(pod));
        }
        drop(book);
        if is_sooner {
            self.shared.changed.notify_one();
        }
    }

    /// All that are wanted have been said. The others are not asked any more, and the next round begins.
    pub fn end_round(&self) {
        self.shared.book().end_round();
    }

    /// For whoever takes pods away.
    pub fn last_word(&self) -> LastWord {
        LastWord(Arc::clone(&self.shared))
    }

    /// What a pod said last; `None` if it is not asked.
    pub fn look(&self, uid: &str) -> Option<Look> {
        self.shared.book().look(uid, self.shared.clock.mono())
    }
}

/// Asks pods that are about to be taken away, all at the same time.
#[derive(Clone)]
pub struct LastWord(Arc<Shared>);

impl std::fmt::Debug for LastWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastWord").finish_non_exhaustive()
    }
}

impl LastWord {
    /// The pods among these that say that they are busy. One that says nothing in time has said before that it is idle, or has no
    /// agent yet; that it was sure enough is for the decision to say.
    pub async fn busy_among(&self, pods: &[Address]) -> Vec<String> {
        let mut asking: JoinSet<Answer> = JoinSet::new();
        for address in pods.iter().take(WAITING_MAX).cloned() {
            let way = Arc::clone(&self.0.way);
            asking.spawn(async move {
                let answer = agents::status(&*way, &address).await;
                (address.uid, answer)
            });
        }
        let mut busy = Vec::new();
        let all = async {
            while let Some(ended) = asking.join_next().await {
                let Ok((uid, Ok(said))) = ended else { continue };
                self.0.book().overhear(&uid, said, self.0.clock.now());
                if !said.busy.is_zero() {
                    busy.push(uid);
                }
            }
        };
        // Whoever has not answered by then is not waited for.
        drop(tokio::time::timeout(LAST_WORD_MAX, all).await);
        busy.sort();
        busy
    }
}

type Answer = (String, Result<Said, Silence>);

async fn run(shared: Arc<Shared>) {
    let mut asking: JoinSet<Answer> = JoinSet::new();
    let mut window = Window { since: shared.clock.mono(), begun: 0 };
    // For as long as somebody wants to know; dropping the set ends it.
    loop {
        let next = begin_due(&shared, &mut asking, &mut window);
        tokio::select! {
            biased;
            Some(ended) = asking.join_next(), if !asking.is_empty() => {
                // A panic while asking: the pod is asked again when its time comes.
                if let Ok((uid, answer)) = ended {
                    take_in(&shared, &uid, answer);
                }
            }
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// How many were begun within the running window.
struct Window {
    since: Instant,
    begun: usize,
}

/// Begins to ask those whose time has come. Answers when to look again.
fn begin_due(shared: &Arc<Shared>, asking: &mut JoinSet<Answer>, window: &mut Window) -> Instant {
    let now = shared.clock.mono();
    if now.saturating_duration_since(window.since) >= WINDOW {
        *window = Window { since: now, begun: 0 };
    }
    while asking.len() < WAITING_MAX {
        if window.begun >= ASKED_IN_WINDOW {
            return window.since + WINDOW;
        }
        let Some((uid, address)) = shared.book().due(now) else { break };
        window.begun += 1;
        let way = Arc::clone(&shared.way);
        asking.spawn(async move {
            let answer = agents::status(&*way, &address).await;
            (uid, answer)
        });
    }
    shared.book().next_at().unwrap_or(now + IDLE).max(now + Duration::from_millis(1))
}

fn take_in(shared: &Shared, uid: &str, answer: Result<Said, Silence>) {
    let (now, wall) = (shared.clock.mono(), shared.clock.now());
    if shared.book().take_in(uid, answer, now, wall) {
        shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
