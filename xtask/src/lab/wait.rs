//! Waiting for conditions, always with a deadline that says what did not happen.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; an error of the condition ends the wait.
pub fn until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("waited {:.0} s in vain for {what}", patience.as_secs_f64());
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Tries until an attempt succeeds and returns its value; the last error tells why none did.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| {
                    format!("waited {:.0} s in vain for {what}", patience.as_secs_f64())
                });
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_the_condition_holds() {
        let mut looks = 0;
        until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok(looks == 3)
        })
        .unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn says_what_did_not_happen() {
        let error = until("rain", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(error.to_string().ends_with("for rain"), "{error}");
        let error = eventually("sun", Duration::from_millis(1), || -> Result<()> {
            bail!("clouds")
        })
        .unwrap_err();
        assert!(
            format!("{error:#}").ends_with("for sun: clouds"),
            "{error:#}"
        );
    }
}
