//! Starts that are not the first: what a new daemon keeps of the old one, and what it does not.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use rustix::process::Signal;
use three_backends::Run;
use xtask::lab::VIP_V4;

impl Run {
    fn weir(&self, arguments: &[&str]) -> String {
        let socket = self.weir.socket().display().to_string();
        let arguments = [arguments, &["--socket", &socket]].concat();
        let output = self.weir.cli(&arguments);
        output.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
    }
}

#[test]
fn a_fresh_start_forgets_commands_pins_and_counters() {
    let mut run = Run::start();
    let names = run.topology.backend_names();
    let backend = run.topology.backends[0].address(VIP_V4).to_string();
    run.weir(&["drain", "--all", &backend]);
    run.answering(100);
    let before = run.weir.status().unwrap();
    run.weir.end_by(Signal::KILL).unwrap();
    run.weir
        .restart_with(&["--fresh"])
        .unwrap_or_else(|error| panic!("{error:#}"));
    let after = run.weir.status().unwrap();
    // Changes that were based on what is gone are refused: the generation goes on.
    assert!(after.generation > before.generation);
    let web = after.vip("web-v4").unwrap();
    assert_eq!((web.packets, web.backends[0].drained), (0, false));
    assert!(before.vip("web-v4").unwrap().packets > 0);
    // At once: nothing holds or moves after a fresh start.
    assert_eq!(run.answering(300), names);

    // And the next start is as fresh: the command is gone for good.
    run.weir.terminate().unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!run.weir.status().unwrap().vip("web-v4").unwrap().backends[0].drained);
}
