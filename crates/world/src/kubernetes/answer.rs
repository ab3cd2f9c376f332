//! The way of a request: understood, met by its fault, performed, written into the books.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Event, Kubernetes,
    fault::Fault,
    fields::Manager,
    object::Key,
    patch::Format,
    refusal::Refusal,
    request::{ApiRequest, Call, Route, Understood, understand},
    verbs::Answer,
    watch::{WatchId, WatchNews},
};

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiAnswer {
    /// A status and a body of JSON.
    Told {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// A stream of lines: [`Kubernetes::take_watch`].
    Watching(WatchId),
    /// Nothing yet, perhaps never: [`Kubernetes::take_answer`].
    Later(Ticket),
    /// The connection breaks.
    Lost,
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// See [`ApiAnswer::Later`].
#[derive(Debug)]
pub(super) enum Waiting {
    Request { asked: Understood, fault: Fault, is_wanted: bool },
    Hanging,
    Answered(ApiAnswer),
}

impl Kubernetes {
    /// Answers a request, after what was due before it.
    pub fn answer(&mut self, request: &ApiRequest, now: Timestamp) -> ApiAnswer {
        self.advance(now);
        let asked = match understand(request) {
            Ok(asked) => asked,
            Err(sentence) => {
                let refusal = Refusal::unknown(&sentence);
                self.journal.unknown(sentence);
                return told(Err(refusal));
            }
        };
        let fault = self.faults.next(&asked.route);
        if fault.hangs {
            return ApiAnswer::Later(self.wait(Waiting::Hanging));
        }
        if fault.delay.is_zero() {
            return self.perform(asked, &fault);
        }
        let at = self.after(fault.delay);
        let ticket = self.wait(Waiting::Request { asked, fault, is_wanted: true });
        self.agenda.enter(at, Event::Perform(ticket));
        ApiAnswer::Later(ticket)
    }

    fn wait(&mut self, waiting: Waiting) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    pub(super) fn perform_later(&mut self, ticket: Ticket) {
        match self.waiting.remove(&ticket) {
            Some(Waiting::Request { asked, fault, is_wanted }) => {
                let answer = self.perform(asked, &fault);
                if is_wanted {
                    self.waiting.insert(ticket, Waiting::Answered(answer));
                    self.answered.insert(ticket);
                } else if let ApiAnswer::Watching(id) = answer {
                    self.close_watch(id);
                }
            }
            Some(other) => drop(self.waiting.insert(ticket, other)),
            None => {}
        }
    }

    /// The answer to a request that had to wait, once.
    pub fn take_answer(&mut self, ticket: Ticket) -> Option<ApiAnswer> {
        match self.waiting.remove(&ticket)? {
            Waiting::Answered(answer) => Some(answer),
            unanswered @ (Waiting::Request { .. } | Waiting::Hanging) => {
                self.waiting.insert(ticket, unanswered);
                None
            }
        }
    }

    /// The client no longer waits. What it asked for is done all the same.
    pub fn give_up(&mut self, ticket: Ticket) {
        if let Some(Waiting::Request { is_wanted, .. }) = self.waiting.get_mut(&ticket) {
            *is_wanted = false;
        } else if let Some(Waiting::Answered(ApiAnswer::Watching(id))) = self.waiting.remove(&ticket) {
            self.close_watch(id);
        }
    }

    /// What a watch has to tell.
    pub fn take_watch(&mut self, id: WatchId) -> WatchNews {
        self.watches.take(id)
    }

    /// The client of a watch is gone.
    pub fn close_watch(&mut self, id: WatchId) {
        self.watches.close(id);
    }

    /// The watches and the waiting requests that have something to take since this was asked last.
    pub fn take_news(&mut self) -> (BTreeSet<WatchId>, BTreeSet<Ticket>) {
        (self.watches.take_news(), std::mem::take(&mut self.answered))
    }

    fn perform(&mut self, asked: Understood, fault: &Fault) -> ApiAnswer {
        let Understood { route, call } = asked;
        let write = call.write();
        let outcome = match fault.status {
            Some(status) => Err(Refusal::simulated(status)),
            None if call.kind().is_some_and(|kind| !self.is_served(kind)) => Err(Refusal::no_such_page()),
            None => self.outcome(call),
        };
        let status = match &outcome {
            Ok(Outcome::Object(status, _)) => *status,
            Ok(Outcome::Watch(_)) => 200,
            Err(refusal) => refusal.code,
        };
        self.book(&route, write, status);
        if let Err(refusal) = &outcome
            && let Some(sentence) = refusal.unknown_sentence()
        {
            self.journal.unknown(sentence.to_owned());
        }
        if fault.loses_answer {
            if let Ok(Outcome::Watch(id)) = outcome {
                self.close_watch(id);
            }
            return ApiAnswer::Lost;
        }
        match outcome {
            Ok(Outcome::Object(status, body)) => told(Ok((status, body))),
            Ok(Outcome::Watch(id)) => ApiAnswer::Watching(id),
            Err(refusal) => told(Err(refusal)),
        }
    }

    fn book(&mut self, route: &Route, write: Option<(String, Key)>, status: u16) {
        self.journal.count(route, status);
        if let Some((who, key)) = write {
            let object = self.store.get(&key).cloned();
            self.journal.note(self.now, who, route, key, (status, object));
        }
    }

    fn outcome(&mut self, call: Call) -> Result<Outcome, Refusal> {
        let (status, body) = match call {
            Call::OpenApi { group, version } => self.openapi(&group, &version)?,
            Call::List { kind, namespace, selector, regarding, limit, from } => {
                self.list((kind, &namespace), (&selector, regarding.as_deref()), limit, from.as_deref())?
            }
            Call::Watch { kind, namespace, selector, version, seconds, bookmarks } => {
                let id = self.watch((kind, namespace), selector, version, seconds, bookmarks)?;
                return Ok(Outcome::Watch(id));
            }
            Call::Get { key, part } => self.get(&key, part)?,
            Call::Create { kind, namespace, manager, object } => {
                self.create(kind, &namespace, &Manager::update(&manager), object)?
            }
            Call::Update { key, part, manager, object } => self.replace(&key, part, &manager, object)?,
            Call::Patch { key, part, manager, content_type, is_forced, patch } => {
                let format = Format::of(&content_type, key.kind)?;
                self.patch_by(&key, part, &manager, (format, is_forced), &patch)?
            }
            Call::Delete { key, options, .. } => self.delete_by(&key, &options)?,
            Call::DeleteCollection { kind, namespace, chosen, options, .. } => {
                self.delete_all((kind, &namespace), &chosen, &options)?
            }
        };
        Ok(Outcome::Object(status, body))
    }
}

/// An answer or a watch.
enum Outcome {
    Object(u16, Value),
    Watch(WatchId),
}

fn told(answer: Answer) -> ApiAnswer {
    match answer {
        Ok((status, body)) => ApiAnswer::Told { status, body: body.to_string() },
        Err(refusal) => ApiAnswer::Told { status: refusal.code, body: refusal.body() },
    }
}
