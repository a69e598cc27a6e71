//! What every store does, told once over `dyn Store` and run on every database at hand.

/// One test a story and database.
macro_rules! stories {
    ($($story:ident)*) => {
        mod sqlite {
            use crate::store::database::Database;
            $(
                #[tokio::test]
                async fn $story() {
                    let database = Database::sqlite().await;
                    super::$story(database.store()).await;
                }
            )*
        }
    };
}

mod batch;
mod clients;
mod database;
mod fault;
mod filters;
mod messages;
mod positions;
mod refusals;
mod retention;
mod sessions;
