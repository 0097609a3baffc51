/*
** Lets a program that is built together with SQLite, and loads no extension
** itself, load those that the environment names (SCRIPTS_PRELOAD, separated by
** colons) as soon as SQLite is initialised. SQLite is compiled with
** -DSQLITE_EXTRA_INIT=scripts_preload.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sqlite3.h"

int scripts_preload(const char *unused){
  const char *list = getenv("SCRIPTS_PRELOAD");
  sqlite3 *db = 0;
  char *names, *name, *rest = 0, *error = 0;
  int rc;
  (void)unused;
  if( list==0 || list[0]==0 ) return SQLITE_OK;
  names = sqlite3_mprintf("%s", list);
  if( names==0 ) return SQLITE_NOMEM;
  rc = sqlite3_open(":memory:", &db);
  if( rc==SQLITE_OK ) rc = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int*)0);
  for(name=strtok_r(names, ":", &rest); rc==SQLITE_OK && name; name=strtok_r(0, ":", &rest)){
    rc = sqlite3_load_extension(db, name, 0, &error);
    if( rc!=SQLITE_OK ){
      fprintf(stderr, "cannot load %s: %s\n", name, error ? error : sqlite3_errmsg(db));
      /* Without it the program would show nothing. */
      exit(1);
    }
  }
  sqlite3_close(db);
  sqlite3_free(names);
  return rc;
}
