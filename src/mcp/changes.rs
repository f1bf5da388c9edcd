//! Notifies subscribers when resources change: in older revisions of the protocol by subscriptions of the session, in newer
//! ones on the stream of a `subscriptions/listen` request.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ErrorData, ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, SubscriptionContext};
use tokio_util::sync::CancellationToken;

use super::resources::{Address, none_such};
use super::scope::{Scope, blocking, run_of};
use crate::app::{ListWatcher, Watcher};
use crate::error::Error;
use crate::run::goal::RunId;

/// Time between two looks at the resources.
const LOOK: Duration = Duration::from_millis(200);

/// Subscriptions of a session.
#[derive(Default)]
pub struct Subscriptions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    uris: BTreeSet<String>,
    /// True once the task that looks for changes was started.
    watched: bool,
}

impl Subscriptions {
    /// Starts to notify `peer` of changes to the list of runs and to the resources that it subscribes to.
    pub fn watch(self: &Arc<Self>, scope: &Arc<Scope>, peer: &Peer<RoleServer>, closed: &CancellationToken) {
        if std::mem::replace(&mut self.state().watched, true) {
            return;
        }
        let (subscriptions, peer, mut looks) = (Arc::clone(self), peer.clone(), Looks::new(scope, true));
        let closed = closed.clone();
        tokio::spawn(async move {
            while pause(&closed).await {
                let uris = subscriptions.state().uris.clone();
                let Ok((again, seen)) = looks.look(uris).await else { return };
                looks = again;
                if seen.list && peer.notify_resource_list_changed().await.is_err() {
                    return;
                }
                for uri in seen.uris {
                    if peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// Subscribes to `uri`.
    ///
    /// # Errors
    /// Fails if there is no such resource.
    pub async fn add(&self, scope: &Arc<Scope>, uri: String) -> Result<(), ErrorData> {
        let address = Address::parse(&uri).ok_or_else(|| none_such(&uri))?;
        let known = scope.read(move |site| run_of(site, &address.run)).await;
        known.map_err(|error| ErrorData::resource_not_found(error.report(), None))?;
        self.state().uris.insert(uri);
        Ok(())
    }

    /// Ends the subscription to `uri`, if there is one.
    pub fn remove(&self, uri: &str) {
        self.state().uris.remove(uri);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the part of a filter that is supported: this server's URIs, and the list.
#[must_use]
pub fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let uris = requested.resource_subscriptions.iter().flatten().filter(|uri| Address::parse(uri).is_some());
    let mut filter = SubscriptionFilter::builder().resource_subscriptions(uris);
    if requested.resources_list_changed == Some(true) {
        filter = filter.resources_list_changed();
    }
    filter.build()
}

/// Notifies a `subscriptions/listen` request of changes until it is cancelled or the client is gone.
pub async fn listen(scope: &Arc<Scope>, subscription: SubscriptionContext, closed: &CancellationToken) {
    let accepted = subscription.accepted();
    let uris: BTreeSet<String> = accepted.resource_subscriptions.iter().flatten().cloned().collect();
    let mut looks = Looks::new(scope, accepted.resources_list_changed == Some(true));
    let tell = async {
        while pause(closed).await {
            let Ok((again, seen)) = looks.look(uris.clone()).await else { return };
            looks = again;
            if seen.list && subscription.sink().notify_resource_list_changed().await.is_err() {
                return;
            }
            for uri in seen.uris {
                if subscription.sink().notify_resource_updated(uri).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = tell => {}
        () = subscription.cancelled() => {}
    }
}

/// Waits for the next look; returns `false` if the client is gone.
async fn pause(closed: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK) => true,
        () = closed.cancelled() => false,
    }
}

/// Watched resources.
struct Looks {
    scope: Arc<Scope>,
    list: Option<ListWatcher>,
    runs: BTreeMap<RunId, Watcher>,
    named: BTreeMap<String, RunId>,
}

/// Changes since the previous look.
#[derive(Default)]
struct Seen {
    list: bool,
    uris: Vec<String>,
}

impl Looks {
    fn new(scope: &Arc<Scope>, list: bool) -> Self {
        let site = scope.site().ok().filter(|_| list);
        let list = site.map(|site| ListWatcher::new(&site));
        Self { scope: Arc::clone(scope), list, runs: BTreeMap::new(), named: BTreeMap::new() }
    }

    /// Looks for changes on another thread, since it reads files.
    async fn look(mut self, uris: BTreeSet<String>) -> Result<(Self, Seen), Error> {
        blocking(move || {
            let seen = self.seen(&uris);
            Ok((self, seen))
        })
        .await
    }

    fn seen(&mut self, uris: &BTreeSet<String>) -> Seen {
        let Ok(site) = self.scope.site() else { return Seen::default() };
        let mut seen = Seen { list: self.list.as_mut().is_some_and(|list| list.moved(&site)), uris: Vec::new() };
        self.named.retain(|uri, _| uris.contains(uri));
        for uri in uris {
            if self.named.contains_key(uri) {
                continue;
            }
            // The run may not exist yet.
            let run = Address::parse(uri).and_then(|address| run_of(&site, &address.run).ok());
            if let Some(run) = run {
                self.named.insert(uri.clone(), run);
            }
        }
        let named = &self.named;
        self.runs.retain(|run, _| named.values().any(|wanted| wanted == run));
        let mut moved = BTreeSet::new();
        for run in self.named.values().cloned().collect::<BTreeSet<_>>() {
            // The first look counts as a change: one between the subscription and that look would be missed otherwise.
            let changed = match self.runs.entry(run.clone()) {
                Entry::Occupied(mut watcher) => watcher.get_mut().moved(&site),
                Entry::Vacant(vacant) => {
                    vacant.insert(Watcher::new(&site, &run));
                    true
                }
            };
            if changed {
                moved.insert(run);
            }
        }
        seen.uris = self.named.iter().filter(|(_, run)| moved.contains(run)).map(|(uri, _)| uri.clone()).collect();
        seen
    }
}
