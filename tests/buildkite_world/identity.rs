//! Whose numbers they are, and by whose clock.

use kitepool::buildkite::Identity;
use kitepool_world::Token;

use super::*;

fn linux() -> Identity {
    Identity { organization: "acme".into(), cluster: Some("uuid-1".into()) }
}

fn expecting(set: &PollSet<InProcess>, expected: &Identity) -> Look {
    set.look(&key(), "q", Some(expected))
}

#[tokio::test(start_paused = true)]
async fn a_token_that_moves_to_another_cluster_gives_no_numbers_at_any_instant() {
    let world = world();
    let set = polling(&world, "one");
    after(&set, Duration::from_secs(1)).await;
    assert_eq!(scheduled(&expecting(&set, &linux())), Some(3));
    world.set_queue("uuid-2", "q", Queue { scheduled: 90, ..Queue::default() });
    world.set_token("one", Some(Token::new("acme", Some("uuid-2"))));
    let mut troubled = 0;
    for _ in 0..120 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let look = expecting(&set, &linux());
        // The old cluster's numbers may be shown with their age until the next poll; the other's never, and no zeros.
        assert!(matches!(scheduled(&look), Some(3) | None), "{look:?}");
        if look.reading.trouble == Some(Trouble::OtherIdentity) {
            assert_eq!(look.reading.last_good, None);
            let sentence = look.trouble.unwrap();
            assert!(sentence.contains("acme/uuid-1") || sentence.contains("acme/linux"), "{sentence}");
            assert!(sentence.contains("uuid-2"), "{sentence}");
            troubled += 1;
        }
    }
    assert!(troubled >= 100, "{troubled}");

    // Back again: one more look at whose it is, and the numbers are there.
    world.set_token("one", Some(Token::new("acme", Some("uuid-1"))));
    after(&set, INTERVAL * 3).await;
    let look = expecting(&set, &linux());
    assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), None));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_let_in_again_is_asked_whose_it_is() {
    let world = world();
    let set = polling(&world, "one");
    after(&set, Duration::from_secs(1)).await;
    world.set_token("one", None);
    let look = after(&set, INTERVAL * 3).await;
    assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), Some(Trouble::Refused)));
    // Another cluster of the same name: the metrics answer alone could not tell them apart.
    let mut state = world.state();
    let twin = state.clusters["uuid-1"].clone();
    state.clusters.insert("uuid-9".into(), twin);
    world.set_state(state);
    world.set_token("one", Some(Token::new("acme", Some("uuid-9"))));
    tokio::time::sleep(INTERVAL * 2).await;
    let look = expecting(&set, &linux());
    assert_eq!((look.reading.last_good, look.reading.trouble), (None, Some(Trouble::OtherIdentity)));
}

#[tokio::test(start_paused = true)]
async fn in_virtual_time_the_worlds_clock_is_buildkites_and_the_age_is_by_ours() {
    let world = world();
    let buildkites = Clock::fixed("2026-08-04T10:00:00Z".parse().unwrap());
    world.set_clock(move || buildkites.now());
    let set = polling(&world, "one");
    let good = after(&set, Duration::from_secs(1)).await.reading.last_good.unwrap();
    assert_eq!(good.date, "2026-08-04T10:00:00Z".parse().unwrap());
    assert_eq!(good.at, Timestamp::UNIX_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn the_interval_goes_up_and_down_again_with_the_header() {
    let world = world();
    let set = polling(&world, "one");
    after(&set, Duration::from_mins(1)).await;
    let asked = || world.requests()[&Route::Metrics][&digest("one")];
    let mut counts = Vec::new();
    for seconds in [Some(60), Some(1), None] {
        world.set_poll_duration(seconds);
        // Until the next answer the old interval holds.
        tokio::time::sleep(Duration::from_mins(1)).await;
        let before = asked();
        tokio::time::sleep(Duration::from_hours(1)).await;
        counts.push(asked() - before);
    }
    println!("polls in an hour with the header at 60, 1 and absent: {counts:?}");
    assert_eq!(counts, [60, 360, 360]);
}

#[tokio::test(start_paused = true)]
async fn until_it_is_known_whose_the_token_is_no_numbers_are_believed_and_afterwards_nobody_asks_again() {
    let world = world();
    world.set_fault(Route::Token, Some(Fault { status: Some(500), ..Fault::default() }));
    let set = polling(&world, "one");
    let look = after(&set, Duration::from_mins(10)).await;
    assert_eq!((look.reading.last_good, look.reading.trouble), (None, Some(Trouble::ServerError)));
    assert!(!world.requests().contains_key(&Route::Metrics), "{:?}", world.requests());
    world.set_fault(Route::Token, None);
    let look = after(&set, Duration::from_mins(1)).await;
    assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), None));
    world.set_fault(Route::Token, Some(Fault { status: Some(500), ..Fault::default() }));
    let look = after(&set, Duration::from_mins(10)).await;
    assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), None));
}
