//! The broker behind the operator's door.

use std::sync::Arc;

use async_trait::async_trait;

use crate::admin::clients::{ClientPage, Clients};
use crate::broker::{Broker, Census};
use crate::model::report::SessionReport;

/// Whose clients and sessions they are.
pub(super) struct Registry(pub(super) Arc<Broker>);

#[async_trait]
impl Clients for Registry {
    async fn list(&self, after: Option<&str>, limit: usize) -> ClientPage {
        page(self.0.census(after, limit).await)
    }

    async fn show(&self, id: &str) -> Result<Option<SessionReport>, String> {
        self.0.session(id).await.map_err(|busy| busy.to_string())
    }

    async fn kick(&self, id: &str) -> Result<bool, String> {
        self.0.kick(id).await.map_err(|busy| busy.to_string())
    }

    async fn sessions(&self, after: Option<&str>, limit: usize) -> Result<ClientPage, String> {
        self.0.sessions(after, limit).await.map(page)
    }

    async fn session(&self, id: &str) -> Result<Option<SessionReport>, String> {
        self.0.any_session(id).await
    }

    async fn delete(&self, id: &str) -> Result<bool, String> {
        self.0.delete_session(id).await
    }
}

fn page(census: Census) -> ClientPage {
    ClientPage {
        clients: census.reports,
        late: census.late,
        more_after: census.more_after,
    }
}
