//! Lines that say what is being done, why, and how long it takes.

use std::{
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Steps longer than this say how long they took.
const WORTH_TELLING: Duration = Duration::from_secs(2);
/// How often a step that is still running says so.
const STILL_RUNNING: Duration = Duration::from_secs(10);

/// Says `what` is being done, does it, and tells the time it took when that was noticeable.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let started = Instant::now();
    let result = thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            while waiting.recv_timeout(STILL_RUNNING) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!(
                    "    … {what}: {:.0} s so far",
                    started.elapsed().as_secs_f64()
                );
            }
        });
        let result = work();
        drop(done);
        result
    });
    let elapsed = started.elapsed();
    if elapsed > WORTH_TELLING {
        let end = if result.is_ok() { "done" } else { "failed" };
        println!("    {end} after {:.1} s: {what}", elapsed.as_secs_f64());
    }
    result
}

/// Tells what should not be, and how the process is to end: well only if there is nothing.
#[must_use]
pub fn verdict(complaints: &[String]) -> ExitCode {
    for complaint in complaints {
        eprintln!("error: {complaint}");
    }
    if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a command whose output belongs on the terminal; an unsuccessful end is an error that shows the command.
pub fn run_visibly(command: &mut Command) -> Result<()> {
    let shown = show(command);
    println!("    $ {shown}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Returns a command as a person would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains(' ') {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_command_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b"]);
        assert_eq!(show(&command), "cargo test 'a b'");
    }

    #[test]
    fn an_unsuccessful_command_is_an_error_that_names_it() {
        let error = run_visibly(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("`false` ended with"), "{error}");
    }

    #[test]
    fn a_step_hands_on_the_result() {
        assert_eq!(step("count", || Ok(3)).unwrap(), 3);
        assert!(step("fail", || -> Result<()> { bail!("no") }).is_err());
    }
}
