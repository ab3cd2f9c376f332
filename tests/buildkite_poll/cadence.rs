//! Whether one token that hangs delays the others.

use std::{collections::BTreeMap, time::Duration};

use kitepool::clock::Clock;
use kitepool_policy::observation::Trouble;
use tokio::time::Instant;
use wiremock::ResponseTemplate;

use super::*;

/// How often each of nine tokens published within `for_long`, and the median time between two publications.
async fn cadence(hanging: bool, for_long: Duration) -> (BTreeMap<String, usize>, Duration) {
    let mut polling = Polling::start().await;
    let mut names: Vec<String> = (0..9).map(|number| format!("good{number}")).collect();
    for name in &names {
        polling.token(name, "acme", "linux").await;
        polling.metrics(name, "acme", "linux", 1).await;
    }
    if hanging {
        polling.token("hanging", "acme", "linux").await;
        let never = ResponseTemplate::new(200).set_delay(DEADLINE * 10);
        polling.answer("/v3/metrics", "hanging", never).await;
        names.push("hanging".to_owned());
    }
    let secrets: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    polling.secrets(&secrets);

    let mut published: BTreeMap<String, Vec<(jiff::Timestamp, Instant)>> = BTreeMap::new();
    let clock = Clock::machine();
    let end = clock.mono() + for_long;
    while tokio::time::timeout_at(end, polling.wake.notified()).await.is_ok() {
        for name in &names {
            let Some(good) = polling.set.look(&secret(name), "q", None).reading.last_good else { continue };
            let all = published.entry(name.clone()).or_default();
            if all.last().is_none_or(|(at, _)| *at != good.at) {
                all.push((good.at, clock.mono()));
            }
        }
    }
    if hanging {
        let look = polling.set.look(&secret("hanging"), "q", None);
        assert_eq!((look.reading.last_good, look.reading.trouble), (None, Some(Trouble::Unreachable)));
    }
    let mut gaps: Vec<Duration> =
        published.values().flat_map(|all| all.windows(2).map(|pair| pair[1].1 - pair[0].1)).collect();
    gaps.sort();
    (published.into_iter().map(|(name, all)| (name, all.len())).collect(), gaps[gaps.len() / 2])
}

#[tokio::test]
async fn one_hanging_token_delays_none_of_nine_others() {
    // Twice the deadline, so that the hanging one runs into it while the others go on.
    let for_long = DEADLINE * 2;
    let (alone, median_alone) = cadence(false, for_long).await;
    let (beside, median_beside) = cadence(true, for_long).await;
    println!("median time between publications: {median_alone:?} alone, {median_beside:?} beside a hanging token");
    println!("publications of each token: {:?} alone, {:?} beside", alone.values(), beside.values());
    assert_eq!(alone.keys().collect::<Vec<_>>(), beside.keys().collect::<Vec<_>>());
    // At the interval there are twenty; had anyone waited for the hanging one, there would be two.
    for (name, count) in alone.iter().chain(&beside) {
        assert!(*count >= 10, "{name} published {count} times");
    }
}
