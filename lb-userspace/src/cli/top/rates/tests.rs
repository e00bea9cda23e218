use super::*;
use crate::cli::top::testing;

fn backend<'a>(top: &'a Top, vip: &str, address: &str) -> &'a Backend {
    let vip = top.vips.iter().find(|found| found.name == vip).unwrap();
    let address: std::net::IpAddr = address.parse().unwrap();
    let mut backends = vip.backends.iter();
    backends.find(|found| found.address == address).unwrap()
}

#[test]
fn rates_are_what_was_counted_over_the_time_between() {
    let top = testing::top();
    assert_eq!(top.seconds, Some(2.0));
    let first = backend(&top, "web", "10.0.0.11");
    assert_eq!(first.rates.packets_per_second, Some(11_923.0));
    assert_eq!(first.rates.bits_per_second, Some(95_384_000.0));
    assert_eq!(first.rates.new_connections_per_second, Some(119.0));
    assert_eq!(top.dropped_per_second, Some(20.0));
    assert_eq!(top.passed_per_second, Some(45.0));
    // One that leaves has only its packets told, and they count for the shares.
    let leaving = backend(&top, "web", "10.0.0.14");
    assert_eq!(leaving.rates.packets_per_second, Some(50.0));
    assert_eq!(leaving.rates.bits_per_second, None);
    let shares = top.vips[0].backends.iter().map(|one| one.traffic_share);
    let shares: f64 = shares.flatten().sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    let vips: f64 = top
        .vips
        .iter()
        .filter_map(|vip| vip.rates.packets_per_second)
        .sum();
    assert_eq!(top.forwarded.packets_per_second, Some(vips));
}

#[test]
fn limits_in_total_are_told_by_counters_and_those_of_sources_by_the_daemon() {
    let top = testing::top();
    let [total, of_sources] = &top.vips[0].limits[..] else {
        panic!("{:?}", top.vips[0].limits)
    };
    let packets = top.vips[0].rates.packets_per_second.unwrap();
    assert_eq!(total.used, Some(packets / 60_000.0));
    assert_eq!(total.over_per_second, Some(20.0));
    assert_eq!(of_sources.used, Some(1.04));
    assert_eq!(top.vips[0].limit_used, Some(1.04));
    assert_eq!(top.vips[0].top_sources.as_ref().unwrap().len(), 1);
    // Without the daemon's measurement it is not known how near sources are.
    let (before, now) = testing::samples();
    let top = Top::new(Some(&before), &now, None);
    assert_eq!(top.vips[0].limits[1].used, None);
    assert_eq!(top.vips[0].top_sources, None);
}

#[test]
fn nothing_is_known_after_one_sample() {
    let (_, now) = testing::samples();
    let top = Top::new(None, &now, None);
    assert_eq!(top.seconds, None);
    assert_eq!(top.forwarded, Rates::default());
    assert_eq!((top.dropped_per_second, top.coming(None)), (None, None));
    for vip in &top.vips {
        assert_eq!(vip.rates, Rates::default());
        assert!(vip.backends.iter().all(|one| one.traffic_share.is_none()));
    }
    // Nor between two at one time.
    assert_eq!(Top::new(Some(&now), &now, None).seconds, None);
}

#[test]
fn counters_that_begin_anew_make_no_rate() {
    let (before, mut now) = testing::samples();
    // The maps are other ones: also what has grown beyond what it was is no rate.
    now.status.reasons[2].packets = 3;
    let top = Top::new(Some(&before), &now, None);
    assert_eq!((top.seconds, top.forwarded), (None, Rates::default()));

    // One counter alone: a VIP that was taken out and came back.
    let (before, mut now) = testing::samples();
    now.status.vips[0].packets = 7;
    let top = Top::new(Some(&before), &now, None);
    assert_eq!(top.vips[0].rates.packets_per_second, None);
    assert!(top.vips[1].rates.packets_per_second.is_some());
    assert!(top.forwarded.packets_per_second.unwrap() > 0.0);
}

#[test]
fn what_comes_and_goes_has_no_rate_until_it_was_there_twice() {
    let (mut before, mut now) = testing::samples();
    before.status.vips.remove(1);
    // The same address under another id has other counters, though they are higher.
    now.status.vips[0].backends[0].id = 9;
    now.status.vips[0].backends[0].packets *= 2;
    let gone = now.status.vips.pop().unwrap();
    let top = Top::new(Some(&before), &now, None);
    assert_eq!(top.vips[1].rates, Rates::default());
    let other = backend(&top, "web", "10.0.0.11");
    assert_eq!((other.rates, other.traffic_share), (Rates::default(), None));
    assert!(top.vips.iter().all(|vip| vip.name != gone.name));
}

#[test]
fn a_backend_that_begins_to_leave_keeps_its_rate() {
    let (before, mut now) = testing::samples();
    let web = &mut now.status.vips[0];
    let own = web.backends.remove(0);
    web.leaving[0].id = own.id;
    web.leaving[0].address = own.address;
    web.leaving[0].packets = own.packets;
    let top = Top::new(Some(&before), &now, None);
    let leaving = backend(&top, "web", "10.0.0.11");
    assert_eq!(leaving.state, BackendState::Leaving);
    assert_eq!(leaving.rates.packets_per_second, Some(11_923.0));
    assert_eq!(leaving.rates.bits_per_second, None);
}

#[test]
fn states_are_told_by_the_worst_that_holds() {
    let top = testing::top();
    let states: Vec<_> = top.vips[0].backends.iter().map(|one| one.state).collect();
    assert_eq!(
        states,
        [
            BackendState::Ok,
            BackendState::Ok,
            BackendState::Failed,
            BackendState::Leaving
        ]
    );
    assert_eq!(
        (top.vips[0].backends_in_use, top.vips[0].configured()),
        (2, 3)
    );
    assert_eq!(top.vips[2].state, VipState::NoBackend);
}

#[test]
fn field_names_are_stable() {
    let json = serde_json::to_value(testing::top()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let sorted = |names: &str| -> Vec<String> {
        let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    };
    let rates = "packets_per_second bits_per_second new_connections_per_second";
    for (at, names) in [
        (
            "",
            "time node version generation ready seconds dropped_per_second passed_per_second interfaces problems vips \
             reasons sampled_sources",
        ),
        (
            "/vips/0",
            "name address port protocol state backends_in_use limit_used slots_changing pins limits backends top_sources",
        ),
        (
            "/vips/0/backends/0",
            "id address state weight weight_share slots_share traffic_share pins mode last_error",
        ),
    ] {
        let names = format!("{names} {rates}");
        assert_eq!(keys(json.pointer(at).unwrap()), sorted(&names), "{at}");
    }
    for (at, names) in [
        ("/interfaces/0", "name state"),
        ("/reasons/0", "reason verdict packets packets_per_second"),
        (
            "/vips/0/limits/0",
            "limit per_second action used allowed_per_second over_per_second",
        ),
        (
            "/vips/0/top_sources/0",
            "source packets_per_second new_connections_per_second over_per_second",
        ),
        (
            "/sampled_sources",
            "unavailable sample samples seconds overestimate_per_second top",
        ),
        (
            "/sampled_sources/top/0",
            "source packets_per_second bits_per_second error_per_second",
        ),
    ] {
        assert_eq!(keys(json.pointer(at).unwrap()), sorted(names), "{at}");
    }
    assert_eq!(json["vips"][2]["state"], "no_backend");
}
