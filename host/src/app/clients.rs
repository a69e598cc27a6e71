//! The broker behind the operator's door.

use async_trait::async_trait;

use crate::admin::clients::{ClientPage, Clients};
use crate::broker::Broker;
use crate::model::report::SessionReport;

#[async_trait]
impl Clients for Broker {
    async fn list(&self, after: Option<&str>, limit: usize) -> ClientPage {
        let census = self.census(after, limit).await;
        ClientPage {
            clients: census.reports,
            late: census.late,
            more_after: census.more_after,
        }
    }

    async fn show(&self, id: &str) -> Result<Option<SessionReport>, String> {
        self.session(id).await.map_err(|busy| busy.to_string())
    }

    async fn kick(&self, id: &str) -> Result<bool, String> {
        Broker::kick(self, id).await.map_err(|busy| busy.to_string())
    }
}
