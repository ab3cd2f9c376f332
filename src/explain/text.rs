//! An account as a person reads it.

use std::fmt::{self, Display, Formatter, Write as _};

use jiff::{SignedDuration, Timestamp};

use super::{Account, PoolAccount, Recorded, RuleSet};

/// What of an account is written, and at which instant.
#[derive(Debug)]
pub struct Text<'a> {
    /// What there is to tell.
    pub account: &'a Account,
    /// The pools as well, or the rules that none satisfies alone.
    pub with_pools: bool,
    /// Ages are counted from here.
    pub now: Timestamp,
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let account = self.account;
        if self.with_pools {
            for pool in &account.pools {
                write_pool(f, pool, &account.namespace, self.now)?;
                f.write_char('\n')?;
            }
            if account.pools.is_empty() {
                writeln!(f, "there is no pool in namespace {}\n", account.namespace)?;
            }
        }
        write_rules(f, account)?;
        account.gaps.iter().try_for_each(|gap| writeln!(f, "note: {gap}"))
    }
}

fn write_pool(f: &mut Formatter<'_>, pool: &PoolAccount, namespace: &str, now: Timestamp) -> fmt::Result {
    write!(f, "{namespace}/{}: ", pool.name)?;
    match pool.status.replicas {
        Some(replicas) => write!(
            f,
            "{} wanted, {} asked for, {} ready, {} draining",
            replicas.desired, replicas.current, replicas.ready, replicas.draining
        )?,
        None => f.write_str("no controller has looked at it yet")?,
    }
    if let Some((min, max)) = pool.limits {
        write!(f, " (min {min}, max {max})")?;
    }
    f.write_char('\n')?;
    write_queue(f, pool)?;
    match &pool.status.last_decision {
        Some(last) => writeln!(f, "  last change  {} -> {}, {}: {}", last.from, last.to, last.reason, last.message)?,
        None => writeln!(f, "  last change  none yet")?,
    }
    pool.held.iter().try_for_each(|held| writeln!(f, "  held         {held}"))?;
    pool.problems.iter().try_for_each(|problem| writeln!(f, "  wrong        {problem}"))?;
    for condition in &pool.status.conditions {
        let (kind, status) = (&condition.type_, &condition.status);
        let since = ago(condition.last_transition_time.0, now);
        writeln!(f, "  {kind:<14} {status:<7} {}, for {since}: {}", condition.reason, condition.message)?;
    }
    if let Some(recorded) = &pool.recorded {
        write_steps(f, recorded, now)?;
    }
    if !pool.events.is_empty() {
        writeln!(f, "  events")?;
    }
    for event in &pool.events {
        let mark = if event.is_warning { '!' } else { ' ' };
        let times = if event.count > 1 { format!(", {} times", event.count) } else { String::new() };
        writeln!(f, "  {mark} {} ago{times}, {}: {}", ago(event.at, now), event.reason, event.note)?;
    }
    Ok(())
}

fn write_queue(f: &mut Formatter<'_>, pool: &PoolAccount) -> fmt::Result {
    write!(f, "  queue        {}", pool.queue.as_deref().unwrap_or("(none)"))?;
    if let Some(identity) = &pool.status.identity {
        write!(f, " of {}", identity.organization)?;
        if let Some(cluster) = &identity.cluster {
            write!(f, ", cluster {cluster}")?;
        }
    }
    if !pool.tags.is_empty() {
        write!(f, "; tags {}", listed(&pool.tags))?;
    }
    f.write_char('\n')?;
    if let Some(load) = pool.status.load {
        write!(
            f,
            "  load         {} scheduled, {} running, {} waiting jobs",
            load.scheduled, load.running, load.waiting
        )?;
        if let Some(agents) = pool.status.agents {
            write!(f, "; agents {} idle, {} busy, {} starting", agents.idle, agents.busy, agents.starting)?;
        }
        f.write_char('\n')?;
    }
    let jobs = if pool.hinted_jobs == 1 { "job" } else { "jobs" };
    writeln!(f, "  hinted       {} {jobs} that it may run, by events that no reading has settled", pool.hinted_jobs)
}

fn write_steps(f: &mut Formatter<'_>, recorded: &Recorded, now: Timestamp) -> fmt::Result {
    writeln!(f, "  steps to {} replicas, recorded {} ago", recorded.target, ago(recorded.at, now))?;
    for step in &recorded.steps {
        writeln!(f, "    {:<10} {:>5} -> {:<5} {}: {}", step.step, step.input, step.output, step.reason, step.message)?;
    }
    Ok(())
}

fn write_rules(f: &mut Formatter<'_>, account: &Account) -> fmt::Result {
    if account.unmatched.is_empty() {
        writeln!(f, "every hinted job on a served queue finds a pool with its tags")?;
    } else {
        writeln!(f, "hinted jobs that no pool of their queue can run:")?;
    }
    for RuleSet { queue, rules, jobs, pools } in &account.unmatched {
        writeln!(f, "  {jobs} on queue {queue} ask for {}; its pools: {}", listed(rules), listed(pools))?;
    }
    if account.unmatched_left_out > 0 {
        writeln!(f, "  and {} more sets of rules", account.unmatched_left_out)?;
    }
    let mut unserved = account.unserved.iter();
    unserved.try_for_each(|(queue, jobs)| writeln!(f, "  {jobs} on queue {queue}, which no pool here serves"))
}

fn listed<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// In whole seconds, minutes, hours or days: the first of them that says enough.
fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).max(SignedDuration::ZERO).as_secs();
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
