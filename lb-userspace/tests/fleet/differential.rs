//! The script in a real Redis against its twin: the same numbers for the same calls, in random order, with lost
//! calls, late calls, a clock that jumps and a Redis that forgets.

use std::time::Duration;

use fastrand::Rng;
use lb_userspace::limits::fleet::{
    Key, Rate,
    redis::SCRIPT,
    wire::{Ask, Request},
};

use crate::{server::Server, twin::Twin};

const CALLS: usize = 4000;

/// The script, told the time by its last argument instead of by Redis.
fn with_time_told() -> String {
    let told = SCRIPT.replace(
        "redis.call('TIME')",
        "{math.floor(ARGV[#ARGV] / 1000000), ARGV[#ARGV] % 1000000}",
    );
    assert_ne!(told, SCRIPT, "the script asks for the time otherwise now");
    told
}

fn request(rng: &mut Rng, nodes: &[u64], serial: u64, sequence: u64) -> Request {
    let rate = |rng: &mut Rng, most: u64| {
        let most = most >> rng.u32(0..20);
        Rate::from_thousandths(rng.u64(0..=most))
    };
    let micros = |rng: &mut Rng, most: u64| Duration::from_micros(rng.u64(1..most));
    let asks = (0..4).filter(|_| rng.bool()).collect::<Vec<_>>();
    let asks = asks.into_iter().map(|limit: u32| {
        let thousandths = [1000, 99_999, 100_000_000, 12_500_000_000_000][limit as usize];
        let limit_of = Rate::from_thousandths(thousandths);
        Ask {
            key: Key::from(format!("web/{limit}").as_str()),
            limit: limit_of,
            want: rate(rng, thousandths),
            held: rate(rng, thousandths),
            has: rate(rng, thousandths),
            is_lease: rng.bool(),
            lease: micros(rng, 600_000),
        }
    });
    let asks = asks.collect();
    Request {
        node: *rng.choice(nodes).unwrap(),
        // Sometimes one that comes late.
        sequence: sequence - rng.u64(0..20).saturating_sub(7).min(sequence - 1),
        serial: serial.saturating_sub(rng.u64(0..3)) + u64::from(rng.u8(..) == 0),
        lease: micros(rng, 300_000),
        gap: Duration::from_millis(200),
        learn: micros(rng, 500_000),
        keep: Duration::from_hours(1),
        asks,
    }
}

#[test]
fn the_twin_answers_as_the_script_does() {
    let server = Server::start();
    let client = redis::Client::open(format!("unix://{}", server.socket().display())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let script = redis::Script::new(&with_time_told());
    let (mut rng, mut twin) = (Rng::with_seed(1), Twin::default());
    let nodes: Vec<u64> = (0..12).map(|_| rng.u64(1..1 << 48)).collect();
    let (mut now, mut serial) = (1_800_000_000_000_000_u64, 0);
    let (mut leases, mut others, mut overtaken, mut learning) = (0, 0, 0, 0);
    for call in 1..=CALLS {
        now += rng.u64(0..30_000);
        match rng.u32(0..300) {
            0 => now += rng.u64(0..2_000_000),
            1 => now -= rng.u64(0..2_000_000),
            2 => {
                server.command(&["FLUSHALL"]);
                twin.flush();
            }
            3 => drop(server.command(&["SCRIPT", "FLUSH"])),
            _ => {}
        }
        let request = request(&mut rng, &nodes, serial, call as u64);
        let mut invocation = script.prepare_invoke();
        for key in request.keys("edge") {
            invocation.key(key);
        }
        for argument in request.arguments() {
            invocation.arg(argument);
        }
        let real: Vec<i64> = invocation.arg(now).invoke(&mut connection).unwrap();
        let said = twin.call(now, &request);
        assert_eq!(real, said, "call {call}: {request:?}");
        if let Ok(reply) = request.read(&real) {
            serial = reply.serial;
            learning += u32::from(reply.is_learning);
            let is_lease = reply
                .answers
                .iter()
                .filter(|answer| answer.is_lease)
                .count();
            leases += is_lease;
            others += reply.answers.len() - is_lease;
        } else {
            overtaken += 1;
        }
    }
    println!(
        "{CALLS} calls: {leases} leases, {others} other answers, {overtaken} overtaken, {learning} learning"
    );
    // All of it was seen.
    assert!(leases > 100 && others > 100 && overtaken > 100 && learning > 100);
}
