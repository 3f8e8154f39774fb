//! A credential that is fetched once and used until it is about to end: object stores ask for it
//! with every request.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

/// It is fetched anew this long before its end.
const MARGIN: Duration = Duration::from_secs(300);
/// One that does not say when it ends is looked for again after this.
const UNDATED: Duration = Duration::from_secs(60);

/// The credential that was fetched last.
pub(super) struct Lasting<T>(Mutex<Option<(Arc<T>, Instant)>>);

impl<T> Default for Lasting<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Lasting<T> {
    /// The credential, from `fetch` if need be, which says how long it lasts.
    pub(super) async fn get<E>(
        &self,
        fetch: impl AsyncFnOnce() -> Result<(T, Option<Duration>), E>,
    ) -> Result<Arc<T>, E> {
        let mut known = self.0.lock().await;
        if let Some((credential, _)) = known.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(credential.clone());
        }
        let (credential, lasts) = fetch().await?;
        let credential = Arc::new(credential);
        let lasts = lasts.map_or(UNDATED, |lasts| lasts.saturating_sub(MARGIN));
        *known = Some((credential.clone(), Instant::now() + lasts));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_is_fetched_anew_before_it_ends() {
        let lasting = Lasting::default();
        let get = async |number| {
            let fetch = async || Ok::<_, ()>((number, Some(Duration::from_secs(900))));
            *lasting.get(fetch).await.unwrap()
        };
        assert_eq!((get(1).await, get(2).await), (1, 1));
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(get(3).await, 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(get(4).await, 4);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let lasting = Lasting::default();
        assert_eq!(lasting.get(async || Err::<(u8, _), _>("no")).await, Err("no"));
        assert_eq!(lasting.get(async || Ok::<_, &str>((7, None))).await, Ok(Arc::new(7)));
    }
}
