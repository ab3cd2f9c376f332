//! Many tokens at once: they do not fire together, and a budget that is too small slows all of them alike.

use std::sync::Mutex;

use kitepool_world::Token;

use super::*;

type Outcomes = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// When each request was sent, since the beginning.
type Sent = Arc<Mutex<Vec<Duration>>>;

#[derive(Clone)]
struct Recorded {
    inner: InProcess,
    clock: Clock,
    sent: Sent,
}

impl Service<Request> for Recorded {
    type Response = Response;
    type Error = reqwest::Error;
    type Future = <InProcess as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.sent.lock().unwrap().push(Duration::try_from(self.clock.now().duration_since(START)).unwrap());
        self.inner.call(request)
    }
}

const START: Timestamp = Timestamp::UNIX_EPOCH;
/// Spread over the interval, fifty tokens are five calls a second.
const TOKENS: usize = 50;
/// The controller's default.
const BUDGET: u32 = 120;

struct Many {
    polls: PollSet<Recorded>,
    world: World,
    names: Vec<String>,
    clock: Clock,
    sent: Sent,
    outcomes: Outcomes,
}

impl Many {
    fn start(count: usize, budget: u32) -> Self {
        let world = World::default();
        let names: Vec<String> = (0..count).map(|number| format!("bkct_{number}")).collect();
        for name in &names {
            world.set_token(name, Some(Token::new("acme", Some("uuid-1"))));
        }
        world.set_queue("uuid-1", "q", Queue { scheduled: 3, ..Queue::default() });
        let (clock, sent, outcomes) = (Clock::fixed(START), Sent::default(), Outcomes::default());
        let transport =
            Recorded { inner: InProcess(router(world.clone())), clock: clock.clone(), sent: Arc::clone(&sent) };
        let client = Client::new(transport, ENDPOINT, INTERVAL / 2, clock.clone()).unwrap();
        let told = Arc::clone(&outcomes);
        let observe = Arc::new(move |outcome, _| *told.lock().unwrap().entry(outcome).or_default() += 1);
        let budget = NonZeroU32::new(budget).unwrap();
        let wake = Arc::new(Notify::new());
        let mut polls = PollSet::new(client, INTERVAL, budget, clock.clone(), wake, observe);
        let secrets = names.iter().map(|name| (secret(name), SecretString::from(name.clone())));
        polls.set(secrets.collect(), BTreeSet::new());
        Self { polls, world, names, clock, sent, outcomes }
    }

    /// For each token the greatest age that its reading came to, looked at every five seconds; and all troubles seen.
    async fn watch(&self, for_long: Duration) -> (Vec<Duration>, BTreeSet<Trouble>) {
        let mut oldest = vec![Duration::ZERO; self.names.len()];
        let mut troubles = BTreeSet::new();
        for _ in 0..for_long.as_secs() / 5 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            for (name, oldest) in self.names.iter().zip(&mut oldest) {
                let reading = self.polls.look(&secret(name), "q", None).reading;
                let since = reading.last_good.map_or(START, |good| good.at);
                *oldest = (*oldest).max(Duration::try_from(self.clock.now().duration_since(since)).unwrap());
                troubles.extend(reading.trouble);
            }
        }
        (oldest, troubles)
    }

    fn most_within(&self, window: Duration, from: Duration) -> usize {
        let sent = self.sent.lock().unwrap();
        let sent: Vec<Duration> = sent.iter().copied().filter(|at| *at >= from).collect();
        let after = |first: &Duration| sent.iter().filter(|at| *at >= first && **at < *first + window).count();
        sent.iter().map(after).max().unwrap_or(0)
    }
}

fn secret(name: &str) -> TokenKey {
    TokenKey::Secret { namespace: "ci".into(), name: name.into(), key: "token".into() }
}

#[tokio::test(start_paused = true)]
async fn fifty_tokens_that_begin_together_poll_apart_afterwards() {
    let many = Many::start(TOKENS, 100_000);
    let (oldest, troubles) = many.watch(Duration::from_mins(5)).await;
    let (first, later) = (
        many.most_within(Duration::from_secs(1), Duration::ZERO),
        many.most_within(Duration::from_secs(1), INTERVAL * 3),
    );
    println!("calls in the busiest second: {first} at the beginning, {later} afterwards; five would be even");
    assert_eq!(first, 2 * TOKENS, "everybody is asked about at once: whose it is, and its load");
    assert!(later <= 12, "{later}");
    assert!(oldest.iter().all(|age| *age <= INTERVAL * 2), "{oldest:?}");
    assert_eq!(troubles, BTreeSet::from([]));
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_too_small_slows_all_tokens_alike() {
    // Fifty tokens at the pace of 90 calls a minute: each is asked with every 33 seconds instead of every ten, and at the
    // beginning each stands in the line twice, to ask whose it is and for its load.
    let many = Many::start(TOKENS, BUDGET);
    let (oldest, troubles) = many.watch(Duration::from_mins(20)).await;
    println!("oldest reading of any of {TOKENS} tokens at {BUDGET} calls a minute: {:?}", oldest.iter().max().unwrap());
    assert!(oldest.iter().all(|age| *age <= Duration::from_mins(1)), "{oldest:?}");
    // Who comes last is not read in the first minute; nobody is in trouble for the pace.
    assert_eq!(troubles, BTreeSet::from([Trouble::NotRead]));
    let within = many.most_within(Duration::from_mins(1), Duration::ZERO);
    assert!(within <= 120, "{within} in the busiest minute of all");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_far_too_small_is_told_and_still_serves_everybody() {
    // Two hundred tokens at the pace of 90 calls a minute: 133 seconds each, beyond the patience.
    let many = Many::start(4 * TOKENS, BUDGET);
    let (oldest, troubles) = many.watch(Duration::from_mins(20)).await;
    println!("oldest reading of any of {} tokens: {:?}", 4 * TOKENS, oldest.iter().max().unwrap());
    // At the beginning each stands in the line twice: to ask whose it is, and for its load.
    assert!(oldest.iter().all(|age| *age <= Duration::from_secs(270)), "{oldest:?}");
    assert!(troubles.contains(&Trouble::RateLimited), "{troubles:?}");
    assert!(many.outcomes.lock().unwrap()["budget_spent"] > 0);
}

/// The instants at which each of the first nine of ten tokens published within ten minutes, and how the tenth fared.
async fn instants_of_nine(tenth_hangs: bool) -> (BTreeMap<String, BTreeSet<Timestamp>>, Look) {
    let many = Many::start(10, 100_000);
    many.world.set_token("bkct_9", Some(Token { hangs: tenth_hangs, ..Token::new("acme", Some("uuid-1")) }));
    let mut instants: BTreeMap<String, BTreeSet<Timestamp>> = BTreeMap::new();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for name in many.names.iter().take(9) {
            let good = many.polls.look(&secret(name), "q", None).reading.last_good;
            instants.entry(name.clone()).or_default().extend(good.map(|good| good.at));
        }
    }
    (instants, many.polls.look(&secret("bkct_9"), "q", None))
}

#[tokio::test(start_paused = true)]
async fn one_hanging_token_moves_no_instant_of_nine_others() {
    let (alone, tenth) = instants_of_nine(false).await;
    assert_eq!(tenth.reading.trouble, None);
    let (beside, tenth) = instants_of_nine(true).await;
    assert_eq!((tenth.reading.last_good, tenth.reading.trouble), (None, Some(Trouble::Unreachable)));
    let counts: Vec<usize> = beside.values().map(BTreeSet::len).collect();
    println!("publications of nine in ten minutes beside a hanging token: {counts:?}, every instant as without it");
    assert!(counts.iter().all(|count| *count >= 59), "{counts:?}");
    assert_eq!(alone, beside);
}
