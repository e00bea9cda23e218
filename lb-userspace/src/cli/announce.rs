//! `weir announce`

use clap::ValueEnum;
use comfy_table::Cell;

use super::{
    Outcome,
    change::{Options, converse},
    output, table,
};
use crate::api::AnnouncementStatus;

const EXAMPLES: &str = "\
Examples:
  weir announce              which addresses are announced here, and why
  weir announce -o json | jq -r '.[] | select(.on).address'
  weir announce off web      the address of VIP web is not found at this node any more
  weir announce on web       it is, and its neighbours are told so

It acts on the address of the VIP, and so on all VIPs that have it: neighbours ask for addresses, not for ports. Packets that come
are forwarded all the same. The last command holds, also over restarts.

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

/// Have the network find a VIP's address at this node, or not
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Whether it is found [default: tell what is]
    #[arg(requires = "vip")]
    word: Option<Word>,
    /// Name of the VIP
    vip: Option<String>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Word {
    /// It is
    On,
    /// It is not
    Off,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let client = args.options.client();
    let (Some(word), Some(vip)) = (args.word, &args.vip) else {
        let all = converse(client.status())??.announcements;
        output::listing(args.options.output, &all, || text(&all))?;
        return Ok(Outcome::Done);
    };
    let is_on = word == Word::On;
    let (changed, all) = converse(async {
        let base = args.options.base_if_given();
        let changed = client.announce(base, vip, is_on).await;
        (changed, client.status().await)
    })?;
    let done = done(
        &all.map(|all| all.announcements).unwrap_or_default(),
        vip,
        is_on,
    );
    args.options.tell(changed, &done)
}

/// Which VIPs a command has acted on.
fn done(all: &[AnnouncementStatus], vip: &str, is_on: bool) -> String {
    let word = if is_on { "announced" } else { "silent" };
    let of = all
        .iter()
        .find(|stands| stands.vips.iter().any(|name| name == vip));
    match of {
        Some(stands) => format!(
            "{} is {word}, and with it every VIP of this address: {}",
            stands.address,
            stands.vips.join(", ")
        ),
        None => format!("the address of VIP {vip} is {word}"),
    }
}

fn text(all: &[AnnouncementStatus]) -> String {
    if all.is_empty() {
        return "no VIP is announced by weir\n".to_owned();
    }
    let mut shown = table::table(&["ADDRESS", "BY", "STATE", "BECAUSE", "VIPS"], 5);
    for stands in all {
        shown.add_row([
            Cell::new(stands.address),
            Cell::new(&stands.by),
            Cell::new(if stands.on { "on" } else { "off" }),
            Cell::new(stands.because.as_str()),
            Cell::new(stands.vips.join(" ")),
        ]);
    }
    format!("{}\n", shown.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::Because;

    fn status(address: &str, on: bool, vips: &[&str]) -> AnnouncementStatus {
        AnnouncementStatus {
            address: address.parse().unwrap(),
            by: "l2".to_owned(),
            on,
            because: Because::Command,
            vips: vips.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn tells_every_vip_that_a_command_acts_on() {
        let all = [
            status("203.0.113.10", true, &["web", "tls"]),
            status("2001:db8::10", false, &["web-v6"]),
        ];
        assert_eq!(
            done(&all, "tls", true),
            "203.0.113.10 is announced, and with it every VIP of this address: web, tls"
        );
        assert_eq!(done(&[], "web", false), "the address of VIP web is silent");
        let shown = text(&all);
        for part in ["203.0.113.10", "l2", "on", "off", "command", "web tls"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(text(&[]), "no VIP is announced by weir\n");
    }
}
