//! `weir top --once`: two samples, and what happened between them.

use anyhow::bail;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};

use super::{
    Args,
    ask::{Daemon, limits_sources},
    model::{SampledSources, Top},
    rates::Sample,
    samples::{Sampled, Subscription, Wanted},
    talkers::{Talkers, sample_for},
    text,
};
use crate::{
    api::client::Client,
    cli::{Outcome, output},
};

/// How long is looked how much comes, before it is sampled.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn run(args: &Args) -> anyhow::Result<Outcome> {
    let daemon = Daemon::new(Client::new(&args.socket));
    let mut before = daemon.sample().await?;
    let vip = args.vip.as_deref();
    if let Some(name) = vip
        && !before.status.vips.iter().any(|vip| vip.name == name)
    {
        bail!("there is no VIP {name}");
    }
    let mut rate = 0.0;
    if args.sources {
        sleep(LOOK).await;
        let now = daemon.sample().await?;
        rate = Top::new(Some(&before), &now, None)
            .coming(vip)
            .unwrap_or_default();
        before = now;
    }
    let deadline = Instant::now() + args.interval;
    let measured = async {
        if !limits_sources(&before.status) {
            return Ok(None);
        }
        daemon.limits(args.interval).await.map(Some)
    };
    let sampled = async {
        if !args.sources {
            return None;
        }
        let wanted = Wanted {
            sample: sample_for(rate, None),
            vip: args.vip.clone(),
        };
        Some(sampled(&daemon, wanted, deadline).await)
    };
    let after = async {
        sleep_until(deadline).await;
        daemon.sample().await
    };
    let (after, measured, sampled) = tokio::join!(after, measured, sampled);
    let after: Sample = after?;
    let mut top = Top::new(Some(&before), &after, measured?.as_ref());
    top.sampled_sources = sampled;
    if let Some(name) = vip {
        top.vips.retain(|vip| vip.name == name);
    }
    output::listing(args.output.unwrap_or_default(), &top, || text::top(&top))?;
    Ok(Outcome::Done)
}

/// The sources of what is sampled until then.
async fn sampled(daemon: &Daemon, wanted: Wanted, deadline: Instant) -> SampledSources {
    let mut talkers = Talkers::new(daemon.now());
    let mut unavailable = None;
    // Until when samples have come: those that are on their way do not count, nor does their time.
    let mut at = daemon.now();
    let mut subscription = Subscription::open(daemon.client.clone(), wanted);
    while let Ok(Some(sampled)) = timeout_at(deadline, subscription.samples.recv()).await {
        at = daemon.now();
        match sampled {
            Sampled::Open => talkers.begin(at),
            Sampled::Packets(packets) => talkers.add_all(&packets),
            Sampled::Unavailable(why) => {
                unavailable = Some(why);
                break;
            }
        }
    }
    SampledSources {
        unavailable,
        ..talkers.told(at)
    }
}
