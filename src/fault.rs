//! A panic is a fault in mmrepl: it is logged with its place, and ends no more than the attempt in
//! which it happened.
//!
//! What a panic says may hold row values, so only texts that were written in the source code are
//! passed on.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, set_hook};
use std::time::Duration;

use futures_util::future::FutureExt;

/// The pause after a panic.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault in mmrepl at {place}: please report it, with the log")]
pub struct Fault {
    /// File and line, and the words of the source code there.
    pub place: String,
}

/// From now on panics go to the log and nowhere else: standard error may be gone, or be read by
/// nobody.
pub fn log_panics() {
    set_hook(Box::new(|info| {
        let place = place(info);
        tracing::error!("fault in mmrepl: panicked at {place}");
        PLACE.with(|kept| *kept.borrow_mut() = Some(place));
    }));
}

fn place(info: &PanicHookInfo<'_>) -> String {
    let at = info.location().map_or_else(
        || "an unknown place".to_owned(),
        |at| format!("{}:{}", at.file(), at.line()),
    );
    match info.payload().downcast_ref::<&'static str>() {
        Some(words) => format!("{at} ({words})"),
        None => at,
    }
}

/// Runs `work`; a panic in it becomes an error.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    // Whatever `work` has borrowed is dropped or begun anew by the caller.
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|payload| fault(&*payload))
}

/// Runs `work` again and again while it ends by a panic, with a pause between.
pub async fn forever<F: Future<Output = ()>>(mut work: impl FnMut() -> F) {
    while caught(work()).await.is_err() {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The panic's place was noted on this thread, where the hook is set.
fn fault(payload: &(dyn Any + Send)) -> Fault {
    let place = PLACE.with(|kept| kept.borrow_mut().take());
    let words = || payload.downcast_ref::<&'static str>();
    let place = place.or_else(|| words().map(|words| (*words).to_owned()));
    Fault {
        place: place.unwrap_or_else(|| "an unknown place".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_without_its_values() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let value = "s3cret";
        let with_value = caught(async move { assert!(value.is_empty(), "{value} is wrong") }).await;
        assert!(!format!("{with_value:?}").contains("s3cret"));
        let fails = async { assert!(value.is_empty(), "in the source") };
        let fault = caught(fails).await.unwrap_err();
        assert!(fault.to_string().contains("in the source"), "{fault}");
    }
}
